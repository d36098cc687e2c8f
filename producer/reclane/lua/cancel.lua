-- Store REVOKED for a request that waits; the lane drops the id at its check or commit.
-- KEYS result   ARGV meta, ttl (s), notify channel, id
-- Returns 1 stored, 0 too late: answered, expired, or never submitted by a reclane client.
-- It is kept as long as the placeholder would have been: the message may wait that long.
local stored = redis.call('GET', KEYS[1])
if stored == ARGV[1] then return 1 end -- repeated after a lost reply
if not stored or is_terminal(stored) then return 0 end
local ttl = math.max(tonumber(ARGV[2]), redis.call('TTL', KEYS[1]))
local notify = {}
gather(notify, store(KEYS[1], ARGV[1], ttl) or {}, ARGV[4])
notify[ARGV[3]] = ARGV[4]
tell(notify)
return 1
