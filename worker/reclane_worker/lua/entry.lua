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

-- Return all that a worker holds, so that what it took first is served first; returns field,
-- entry of each, as they were pushed.
local function give_all_back(inflight)
  local flat, rows = redis.call('HGETALL', inflight), {}
  for i = 1, #flat, 2 do
    local batch, position = string.match(flat[i], '^%d+:(%d+):(%d+)$')
    rows[#rows + 1] = {flat[i], flat[i + 1], tonumber(batch) or 0, tonumber(position) or 0}
  end
  table.sort(rows, function(a, b)
    if a[3] ~= b[3] then return a[3] > b[3] end
    return a[4] > b[4]
  end)
  for _, row in ipairs(rows) do give_back(row[2]) end
  redis.call('DEL', inflight)
  return rows
end
