"""Speed, as ratios inside one run: both sides of each are measured in turns on this machine."""
