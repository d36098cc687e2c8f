-- End entries: each result becomes visible only if its entry is still ours and no terminal
-- result exists. Then a stalled worker that comes back can neither overwrite nor publish twice.
-- KEYS in-flight, attempts, dead letters
-- ARGV result ttl (s), dead letter bound, then per entry:
--   field, result key ('' = none), meta, notify channels (one a line), task id, dead letters (one
--   a line); a key without meta holds a revocation that need not outlive a result any more
-- Returns the fields that were no longer ours, and those that ended without their result: another
-- one stands, or the key waits for another request. Repeating it after a lost reply changes nothing.
local inflight, attempts, dead_letters = KEYS[1], KEYS[2], KEYS[3]
local ttl, bound = ARGV[1], tonumber(ARGV[2])
local any_crashed = redis.call('EXISTS', attempts) == 1
local lost, late, notify = {}, {}, {}

for i = 3, #ARGV, 6 do
  local field, key, meta = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local channels, id, dead = ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]
  local entry = any_crashed and redis.call('HGET', inflight, field)
  if redis.call('HDEL', inflight, field) == 0 then
    lost[#lost + 1] = field
  else
    if entry then
      local _, message = take_apart(entry)
      redis.call('HDEL', attempts, redis.sha1hex(message))
    end
    for letter in string.gmatch(dead, '[^\n]+') do redis.call('LPUSH', dead_letters, letter) end
    if dead ~= '' then redis.call('LTRIM', dead_letters, 0, bound - 1) end
    local others = {}
    if key ~= '' and meta == '' then
      -- Not if its key was asked again meanwhile and waits.
      if is_terminal(redis.call('GET', key)) then redis.call('EXPIRE', key, ttl, 'LT') end
    elseif key ~= '' then
      others = store(key, meta, ttl)
      if not others then
        late[#late + 1] = field
        others = {}
      end
    end
    for name in string.gmatch(channels, '[^\n]+') do others[#others + 1] = name end
    gather(notify, others, id)
  end
end
tell(notify)
return {lost, late}
