-- Note the digest of a request with an idempotency key in a result that Celery itself stored.
-- KEYS result   ARGV digest
local stored = redis.call('GET', KEYS[1])
if is_terminal(stored) and not string.find(stored, '"reclane_digest"', 1, true) then
  local open = string.sub(stored, 1, -2)
  redis.call('SET', KEYS[1], open .. ', "reclane_digest": "' .. ARGV[1] .. '"}', 'KEEPTTL')
end
return 1
