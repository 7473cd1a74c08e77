"""Files and stores written anew: other chunks, codecs, profiles, or the other backend."""
