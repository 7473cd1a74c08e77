"""The only room that knows HDMF and PyNWB."""
