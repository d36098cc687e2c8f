-- Await a request that was submitted elsewhere.
-- KEYS result   ARGV notify channel   returns its result, '' while it waits, nil if unknown
local stored = redis.call('GET', KEYS[1])
if not stored then return false end
if not is_pending(stored) then return stored end
local details = details_of(stored)
add_channel(details, ARGV[1])
redis.call('SET', KEYS[1], placeholder(details), 'KEEPTTL')
return ''
