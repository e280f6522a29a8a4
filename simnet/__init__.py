"""Virtual-time worlds that run the market's own cores (floor F4). Never imports peer/."""
