-- Whether `key` holds a result that must never be overwritten (SUCCESS, FAILURE, REVOKED).
-- Prepended to scripts that store a result.
local function is_terminal(key)
  local stored = redis.call('GET', key)
  if not stored then return false end
  local ok, meta = pcall(cjson.decode, stored)
  if not ok or type(meta) ~= 'table' then return true end
  return meta.status == 'SUCCESS' or meta.status == 'FAILURE' or meta.status == 'REVOKED'
end
