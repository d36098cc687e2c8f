-- An in-flight entry is its origin list and its message, with a line feed between.
-- Prepended to every script of the lane.
local function take_apart(entry)
  local cut = string.find(entry, '\n', 1, true)
  return string.sub(entry, 1, cut - 1), string.sub(entry, cut + 1)
end

-- Put an entry back where it is served next.
local function give_back(entry)
  redis.call('RPUSH', take_apart(entry))
end
