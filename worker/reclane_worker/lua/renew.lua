-- Renew the lease by Redis's clock and publish the worker's statistics.
-- KEYS leases, worker, pace
-- ARGV worker id, lease (ms), statistics, requests per second ('' = not known)
-- Returns 1 ours, 0 recovered
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2], ARGV[1])
redis.call('HSET', KEYS[2], 'stats', ARGV[3])
if ARGV[4] ~= '' then redis.call('HSET', KEYS[3], ARGV[1], ARGV[4]) end
return 1
