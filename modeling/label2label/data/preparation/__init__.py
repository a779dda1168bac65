"""How the programs in `datasets_scripts/` write, merge and upload datasets of the one schema."""
