-- Store REVOKED unless a terminal result exists; the lane drops the id at its check or commit.
-- KEYS result   ARGV meta, ttl (s), notify channel, id   returns 1 cancelled, 0 too late
if is_terminal(KEYS[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
redis.call('PUBLISH', KEYS[1], ARGV[1])
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 1
