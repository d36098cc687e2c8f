-- Store one result and tell who waits for it, as the lane's commit does: for reclane.testing.
-- KEYS result   ARGV meta ('' = none), ttl (s), notify channel ('' = none), id
local channels = ARGV[1] ~= '' and store(KEYS[1], ARGV[1], ARGV[2]) or {}
channels[#channels + 1] = ARGV[3] ~= '' and ARGV[3] or nil
local notify = {}
gather(notify, channels, ARGV[4])
tell(notify)
