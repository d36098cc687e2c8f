-- Changes nothing; loaded without allow-oom, it is refused while Redis is full.
return 1
