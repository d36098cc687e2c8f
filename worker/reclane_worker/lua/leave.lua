-- Give up the lease; refused while anything is in flight.
-- KEYS leases, in-flight, worker, pace   ARGV worker id   returns 1 left, 0 refused
if redis.call('HLEN', KEYS[2]) > 0 then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[3])
redis.call('HDEL', KEYS[4], ARGV[1])
return 1
