-- Which calls the user may not make. ARGV one call each, its words parted by line feeds.
local refused = {}
for _, call in ipairs(ARGV) do
  local words = {}
  for word in string.gmatch(call, '[^\n]+') do words[#words + 1] = word end
  if not redis.acl_check_cmd(unpack(words)) then refused[#refused + 1] = call end
end
return refused
