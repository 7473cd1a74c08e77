"""Where encoded chunks go."""
