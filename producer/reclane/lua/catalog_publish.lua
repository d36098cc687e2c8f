-- Say which version of a catalog workers shall serve, unless somebody else came first.
-- KEYS catalogs   ARGV name, what was read before ('' = nothing), what it becomes, channel
-- Returns 1 done, 0 where it had changed meanwhile.
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('PUBLISH', ARGV[4], ARGV[1])
return 1
