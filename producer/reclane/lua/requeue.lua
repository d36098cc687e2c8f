-- Put a dead letter's message back, once.
-- KEYS dead letters, list, attempts
-- ARGV letter, message, result key ('' = none), placeholder ttl (s, 0 = none), digests...
-- Returns 1 requeued; 0 no such letter any more, so that a repeat does nothing; -1 answered or
-- revoked meanwhile, which stays as it is.
-- The failure gives way to the placeholder of a waiting request, which keeps its key's digest.
-- Without allow-oom: on a full server this fails loudly and changes nothing.
if not redis.call('LPOS', KEYS[1], ARGV[1]) then return 0 end
local key, ttl = ARGV[3], tonumber(ARGV[4])
local stored = key ~= '' and redis.call('GET', key)
local details = {}
if is_terminal(stored) then
  local ok, meta = pcall(cjson.decode, stored)
  if not ok or type(meta) ~= 'table' or meta.status ~= 'FAILURE' then return -1 end
  details.digest = meta.reclane_digest
  redis.call('DEL', key)
  stored = false
end
if key ~= '' and ttl > 0 and not stored then
  redis.call('SET', key, placeholder(details), 'EX', ttl)
end
redis.call('LREM', KEYS[1], -1, ARGV[1])
redis.call('HDEL', KEYS[3], unpack(ARGV, 5))
redis.call('LPUSH', KEYS[2], ARGV[2])
return 1
