"""Pure arithmetic: chunk grids, profiles, rules, memory."""
