-- Return entries to the end of their lists that is served next; with a due time, park them.
-- KEYS in-flight, scheduled   ARGV due (ms, or -1), field...   returns how many were ours
-- Fields come oldest first and are pushed newest first, so that the oldest is served first.
local due, moved = tonumber(ARGV[1]), 0
for i = #ARGV, 2, -1 do
  local entry = redis.call('HGET', KEYS[1], ARGV[i])
  if entry and redis.call('HDEL', KEYS[1], ARGV[i]) == 1 then
    moved = moved + 1
    if due >= 0 then
      redis.call('ZADD', KEYS[2], due, entry)
    else
      give_back(entry)
    end
  end
end
return moved
