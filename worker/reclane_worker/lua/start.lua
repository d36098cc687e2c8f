-- Say which entries the worker is busy with: only these count an attempt if the process dies.
-- KEYS leases, worker   ARGV worker id, fields or their parts (field#place), one a line
-- Returns 1 ours, 0 recovered
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
redis.call('HSET', KEYS[2], 'started', ARGV[2])
return 1
