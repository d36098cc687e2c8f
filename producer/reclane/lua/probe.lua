-- Whether Redis takes writes, how long a worker's lease still lasts by Redis's clock, and what the
-- worker says of itself.
-- KEYS leases, worker   ARGV worker id
-- Returns ms left (negative: lapsed), or nil without a lease; and its statistics, or nil
-- Removing a member that is never there changes nothing, and is refused where writes are.
redis.call('ZREM', KEYS[1], '')
local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
local statistics = redis.call('HGET', KEYS[2], 'stats')
if not ends then return {false, statistics} end
local time = redis.call('TIME')
return {tonumber(ends) - (time[1] * 1000 + math.floor(time[2] / 1000)), statistics}
