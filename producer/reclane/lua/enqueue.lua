-- Push messages once: a repeated call id does nothing, so a lost reply is safe to repeat.
-- KEYS call marker, list   ARGV marker ttl (s), message...   returns 1 pushed, 0 known call
-- Without allow-oom: on a full server enqueueing fails loudly.
if not redis.call('SET', KEYS[1], 1, 'NX', 'EX', ARGV[1]) then return 0 end
redis.call('LPUSH', KEYS[2], unpack(ARGV, 2))
return 1
