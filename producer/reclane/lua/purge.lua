-- Take messages out of a list, each with a visible ending in the same instant.
-- KEYS list, attempts
-- ARGV result ttl (s), how far from the served end to look, then per message:
--   message, result key ('' = no id), meta ('' = store nothing), notify channel ('' = none), id
-- Returns how many left the list, and how many of those had no id. One that is gone (a worker
-- took it, or this call is a repeat after a lost reply) is left alone. One whose idempotency key
-- waits for another request by now leaves the list and its key alone.
local ended, without_id, notify = 0, 0, {}
for i = 3, #ARGV, 5 do
  local message, key, meta = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local channel, id = ARGV[i + 3], ARGV[i + 4]
  -- LREM alone would search the whole list for one that is gone.
  if redis.call('LPOS', KEYS[1], message, 'RANK', -1, 'MAXLEN', ARGV[2]) then
    redis.call('LREM', KEYS[1], -1, message)
    redis.call('HDEL', KEYS[2], redis.sha1hex(message))
    ended = ended + 1
    if key == '' then without_id = without_id + 1 end
    local others = meta ~= '' and store(key, meta, ARGV[1]) or {}
    others[#others + 1] = channel ~= '' and channel or nil
    gather(notify, others, id)
  end
end
tell(notify)
return {ended, without_id}
