-- Puts a whole book in place, or tells all that is kept of one: after the parts of the package.

local given = cjson.decode(ARGV[1])

if given.desk then
  for _, key in ipairs(KEYS) do call('DEL', key) end
  for _, key in ipairs(given.replies) do call('DEL', key) end
  desk = copy(desk, given.desk)
  for _, row in ipairs(given.rows) do
    row.has_outcome = row.outcome ~= nil
    if row.outcome then call('HSET', OUTCOMES, row.key, row.outcome) end
    row.outcome = nil
    if row.doubt then row.doubt_kind, row.doubt_count, row.doubt_counted = unpack(row.doubt) end
    put(row)
  end
  for key, each in pairs(given.contents) do put_contents(key, each.note, each.order) end
  for _, wish in ipairs(given.wishes) do put_wish(wish) end
  for _, each in ipairs(given.members) do put_member(each.name, each.kind, each.seq, each.heard) end
  for _, each in ipairs(given.lessons) do
    call('ZADD', LESSONS, each[1], pack(each[1], each[2], each[3], each[4], or_nil(each[5])))
  end
  save_desk()
end

local all = { rows = {}, wishes = {}, members = {}, lessons = lessons_after(0), sizes = {} }
for _, key in ipairs(call('HKEYS', ROWS)) do all.rows[#all.rows + 1] = found_out(row_of(key)) end
for _, key in ipairs(call('HKEYS', WISHES)) do all.wishes[#all.wishes + 1] = wish_out(wish_of(key)) end
for _, each in ipairs(members()) do
  all.members[#all.members + 1] = { each.name, each.kind, text_of(each.seq), text_of(each.heard) }
end
for _, zset in ipairs({ NEW, DUE, UNREAD, READ, REMOVED, ENDED, HOLDS }) do
  all.sizes[#all.sizes + 1] = call('ZCARD', zset)
end
for _, hash in ipairs({ OUTCOMES, NOTES, ORDERS }) do
  all.sizes[#all.sizes + 1] = call('HLEN', hash)
end
return cjson.encode(all)
