-- Put a dead letter's message back, once.
-- KEYS dead letters, list, attempts
-- ARGV letter, message, result key ('' = none), placeholder ttl (s, 0 = none), digest of a request
--   with an idempotency key ('' = none), hashes of messages whose crashes are forgotten...
-- Returns 1 requeued; 0 no such letter any more, so that a repeat does nothing; -1 answered or
-- revoked meanwhile, or its key waits for another request, which stays as it is.
-- The failure gives way to the placeholder of a waiting request.
-- Without allow-oom: on a full server this fails loudly and changes nothing.
if not redis.call('LPOS', KEYS[1], ARGV[1]) then return 0 end
local key, ttl, digest = ARGV[3], tonumber(ARGV[4]), ARGV[5]
local stored = key ~= '' and redis.call('GET', key)
if is_terminal(stored) then
  local ok, meta = pcall(cjson.decode, stored)
  if not ok or type(meta) ~= 'table' or meta.status ~= 'FAILURE' then return -1 end
  redis.call('DEL', key)
  stored = false
elseif stored and digest ~= '' and (details_of(stored).digest or digest) ~= digest then
  return -1
end
if key ~= '' and ttl > 0 and not stored then
  redis.call('SET', key, placeholder({digest = digest ~= '' and digest or nil}), 'EX', ttl)
end
redis.call('LREM', KEYS[1], -1, ARGV[1])
redis.call('HDEL', KEYS[3], unpack(ARGV, 6))
redis.call('LPUSH', KEYS[2], ARGV[2])
return 1
