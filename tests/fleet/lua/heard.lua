-- Says of readers when they were last heard of: after the parts of the package.

local heard = cjson.decode(ARGV[1])
for _, member in ipairs(members()) do
  local when = heard[member.name]
  if when then put_member(member.name, member.kind, member.seq, when) end
end
