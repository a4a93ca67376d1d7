-- Where the rows of a book lie while one step is made, in the keys of one slot.
-- A script that fails is not rolled back: it checks first, and what tells that the step was made
-- (the member's `seq`, the desk, the reply) is written last.

local V, DESK, ROWS, OUTCOMES, NOTES, ORDERS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local NEW, DUE, UNREAD, READ, REMOVED = KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local ENDED, ENDS, HOLDS, WISHES = KEYS[12], KEYS[13], KEYS[14], KEYS[15]
local MEMBERS, LESSONS, LOG, REPLY = KEYS[16], KEYS[17], KEYS[18], KEYS[19]

local NULL = cjson.null
local call = redis.call
local pack, unpack_all = cmsgpack.pack, cmsgpack.unpack

-- All digits: what Lua and its cjson make of a number by themselves has 14.
local function text_of(number)
  return string.format('%.17g', number)
end

local function number_or_null(number)
  return number == nil and NULL or text_of(number)
end

local function or_null(value)
  return value == nil and NULL or value
end

local function or_nil(value)
  if value == NULL then return nil end
  return value
end

local function copy(given, changes)
  local made = {}
  for name, value in pairs(given) do made[name] = value end
  for name, value in pairs(changes) do made[name] = value end
  return made
end

-- What is known beside the entries.

local desk = {
  number = 0, purged = -FAR, clock = 0, next_start = -FAR, line = 0, accounts = {}, is_read = false,
  open = 0, unread = 0, parked = 0, succeeded = 0, failed = 0, unresolved = 0,
  gate = { is_closed = false, ['until'] = -FAR, step = 0, probe = 0, probe_until = -FAR },
  raw = -FAR, ahead = 0, keys = 0,
}
local is_news = false -- whether others are to look

-- How many keys there are, but for the desk and the reply: none comes or goes but by a step.
local function count_keys()
  return call('EXISTS', V, unpack(KEYS, 3, 18))
end

-- Whether all is there that the last step left: a step on a part of it would lose the rest unseen.
local function load_desk()
  local text = call('GET', DESK)
  if text then desk = copy(desk, unpack_all(text)) end
  return count_keys() == desk.keys
end

local function save_desk()
  desk.keys = count_keys()
  call('SET', DESK, pack(desk))
end

-- The time of the book: that of Redis, and what it was ever set back by.
local function time_of_book(raw)
  if not raw then
    local time = call('TIME')
    raw = time[1] + time[2] / 1e6
  end
  if raw < desk.raw then desk.ahead = desk.ahead + (desk.raw - raw) end
  desk.raw = raw
  return raw + desk.ahead
end

local function clock_of(now)
  desk.clock = math.max(desk.clock, now)
  return desk.clock
end

local function next_number()
  desk.number = desk.number + 1
  return desk.number
end

-- Entries.

local STATES = { o = 'open', u = 'unread', r = 'read', p = 'parked', x = 'removed' }
local CODES = { open = 'o', unread = 'u', read = 'r', parked = 'p', removed = 'x' }
local PLACES = { unread = UNREAD, read = READ, removed = REMOVED }

-- A time that is as another one needs no second place: there are many rows.
local function unless_same(time, other)
  if time == other then return true end
  return time
end

local function or_other(time, other)
  if time == true then return other end
  return time
end

local function packed(row)
  local answered = row.answered > -FAR and row.answered or nil
  return pack(
    CODES[row.state], row.at, row.number, row.is_new, unless_same(row.due, row.at), row.token,
    row.added, row.added_at, row.external_id, row.kind, row.queries, row.first,
    row.seen and unless_same(row.seen, answered), answered, row.doubt_kind, row.doubt_count,
    row.doubt_counted, row.fault, row.task, row.born,
    row.looked and unless_same(row.looked, answered), row.is_nudged, row.ended,
    row.has_outcome, row.count, row.is_settled, row.holder, row.deliveries, row.handed
  )
end

local function unpacked(key, text)
  local row = { key = key }
  local state
  state, row.at, row.number, row.is_new, row.due, row.token, row.added, row.added_at,
    row.external_id, row.kind, row.queries, row.first, row.seen, row.answered, row.doubt_kind,
    row.doubt_count, row.doubt_counted, row.fault, row.task, row.born, row.looked, row.is_nudged,
    row.ended, row.has_outcome, row.count, row.is_settled, row.holder, row.deliveries,
    row.handed = unpack_all(text)
  row.state = STATES[state]
  row.due = or_other(row.due, row.at)
  row.seen, row.looked = or_other(row.seen, row.answered), or_other(row.looked, row.answered)
  row.answered = row.answered or -FAR
  return row
end

-- Rows of one moment keep their order: members of one score are in order of their bytes.
local function member_of_row(row)
  return struct.pack('>I6', row.number) .. row.key
end

local function key_of_member(member)
  return string.sub(member, 7)
end

local function place_of(row)
  local zset, is_ended = PLACES[row.state], row.state == 'unread' or row.state == 'parked'
  if row.state == 'open' then zset = row.is_new and NEW or DUE end
  return {
    zset = zset,
    member = member_of_row(row),
    is_ended = is_ended,
    hold = is_ended and row.holder and (row.holder .. '\0' .. member_of_row(row)),
  }
end

local places = {} -- by key: where a row lies, or false

local function row_of(key)
  local text = call('HGET', ROWS, key)
  if not text then
    places[key] = false
    return nil
  end
  local row = unpacked(key, text)
  places[key] = place_of(row)
  return row
end

local function take_out(place, new)
  if place.zset and not (new and new.zset == place.zset and new.member == place.member) then
    call('ZREM', place.zset, place.member)
  end
  if place.is_ended and not (new and new.is_ended and new.member == place.member) then
    call('ZREM', ENDED, place.member)
  end
  if place.hold and not (new and new.hold == place.hold) then call('ZREM', HOLDS, place.hold) end
end

local function put(row)
  if places[row.key] == nil then row_of(row.key) end
  local before, place = places[row.key], place_of(row)
  call('HSET', ROWS, row.key, packed(row))
  if before then take_out(before, place) end
  if place.zset then call('ZADD', place.zset, row.at, place.member) end
  if place.is_ended then call('ZADD', ENDED, row.ended, place.member) end
  if place.hold then call('ZADD', HOLDS, 0, place.hold) end
  places[row.key] = place
end

local function drop(key)
  if places[key] == nil then row_of(key) end
  if places[key] then take_out(places[key]) end
  for _, hash in ipairs({ ROWS, OUTCOMES, NOTES, ORDERS }) do call('HDEL', hash, key) end
  places[key] = false
end

local function set_or_drop(hash, key, text)
  if text == nil then call('HDEL', hash, key) else call('HSET', hash, key, text) end
end

local function put_contents(key, note, order)
  set_or_drop(NOTES, key, note)
  set_or_drop(ORDERS, key, order)
end

local function content(hash, key)
  return call('HGET', hash, key) or nil
end

local function due(zset, now, limit)
  if limit <= 0 then return {} end
  return call('ZRANGEBYSCORE', zset, '-inf', text_of(now), 'LIMIT', 0, limit)
end

local function ended_before(time, limit)
  return call('ZRANGEBYSCORE', ENDED, '-inf', '(' .. text_of(time), 'LIMIT', 0, limit)
end

local function first_at(zset)
  local found = call('ZRANGE', zset, 0, 0, 'WITHSCORES')
  return found[2] and tonumber(found[2]) or nil
end

local function held_by(reader)
  local keys = {}
  local first = #reader + 2
  for _, hold in ipairs(call('ZRANGEBYLEX', HOLDS, '[' .. reader .. '\0', '(' .. reader .. '\1')) do
    keys[#keys + 1] = key_of_member(string.sub(hold, first))
  end
  return keys
end

-- Wishes, members, lessons.

local function wish_of(external_id)
  local text = call('HGET', WISHES, external_id)
  if not text then return nil end
  local wish = { external_id = external_id }
  wish.digest, wish.task_id, wish.is_keyed = unpack_all(text)
  return wish
end

local function put_wish(wish)
  call('HSET', WISHES, wish.external_id, pack(wish.digest, wish.task_id, wish.is_keyed))
end

local function drop_wish(external_id)
  call('HDEL', WISHES, external_id)
end

local function unpacked_member(name, text)
  local member = { name = name }
  member.kind, member.seq, member.heard = unpack_all(text)
  return member
end

local function member_of(name)
  local text = call('HGET', MEMBERS, name)
  return text and unpacked_member(name, text) or nil
end

local function put_member(name, kind, seq, now)
  call('HSET', MEMBERS, name, pack(kind, seq, now))
end

local function drop_member(name)
  call('HDEL', MEMBERS, name)
end

local function members()
  local found, all = call('HGETALL', MEMBERS), {}
  for place = 1, #found, 2 do
    all[#all + 1] = unpacked_member(found[place], found[place + 1])
  end
  table.sort(all, function(one, other) return one.name < other.name end)
  return all
end

local function add_lesson(lesson)
  local number = next_number()
  local text = pack(number, lesson[1], lesson[2], lesson[3], or_nil(lesson[4]))
  call('ZADD', LESSONS, number, text)
  call('ZREMRANGEBYRANK', LESSONS, 0, -LESSONS_KEPT - 1)
end

local function lessons_after(after)
  local all = {}
  for _, text in ipairs(call('ZRANGEBYSCORE', LESSONS, '(' .. text_of(after), '+inf')) do
    local number, kind, after_s, until_s, ended_s = unpack_all(text)
    all[#all + 1] = {
      text_of(number), kind, text_of(after_s), text_of(until_s), number_or_null(ended_s),
    }
  end
  return all
end

-- What Python gets.

local function row_out(row)
  local doubt = NULL
  if row.doubt_kind then
    doubt = { row.doubt_kind, text_of(row.doubt_count), text_of(row.doubt_counted) }
  end
  return {
    row.key, row.state, text_of(row.at), text_of(row.number), row.is_new, text_of(row.due),
    text_of(row.token), text_of(row.added), text_of(row.added_at), or_null(row.external_id),
    or_null(row.kind), text_of(row.queries), number_or_null(row.first), number_or_null(row.seen),
    text_of(row.answered), doubt, or_null(row.fault), or_null(row.task), number_or_null(row.born),
    number_or_null(row.looked), row.is_nudged, number_or_null(row.ended),
    or_null(row.has_outcome and content(OUTCOMES, row.key) or nil), or_null(row.count),
    row.is_settled, or_null(row.holder), text_of(row.deliveries), number_or_null(row.handed),
  }
end

local function found_out(row)
  return {
    row_out(row), or_null(content(NOTES, row.key)), or_null(content(ORDERS, row.key)),
  }
end

local function wish_out(wish)
  return { wish.external_id, wish.digest, or_null(wish.task_id), wish.is_keyed }
end

local function terms_out()
  local terms = desk.terms
  if not terms then return NULL end
  return {
    text_of(terms.low), text_of(terms.high), number_or_null(terms.max_rate),
    text_of(terms.confirmations), number_or_null(terms.timeout),
  }
end
