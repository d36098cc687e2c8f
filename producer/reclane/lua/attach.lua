-- Await a request that was submitted elsewhere.
-- KEYS result   ARGV notify channel   returns its result, '' while it waits, nil if unknown
local stored = redis.call('GET', KEYS[1])
if not stored then return false end
if not is_pending(stored) then return stored end
add_waiter(KEYS[1], stored, ARGV[1])
return ''
