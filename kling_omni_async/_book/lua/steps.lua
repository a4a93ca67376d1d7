-- Reads what is asked for, makes that one step, and answers by one text of JSON.

local form = call('GET', V)
if form and form ~= FORM then return redis.error_reply('FORM ' .. form) end

local verb, given = ARGV[1], cjson.decode(ARGV[2])
local wall, keep_s, raw = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5] or '')
if not load_desk() then return redis.error_reply('DAMAGED keys are missing, or too many') end

-- Looks write nothing.

local looks = {}

function looks.find()
  local row = entry_of(given.key)
  return row and found_out(row) or NULL
end

-- Keys are in no order here: whoever lists them sorts them.
function looks.scan()
  local found, keys = call('HSCAN', ROWS, given.cursor, 'COUNT', SCANNED), {}
  for place = 1, #found[2], 2 do keys[#keys + 1] = found[2][place] end
  return { found[1], keys }
end

function looks.list()
  local all = {}
  for _, key in ipairs(given.keys) do
    local row = unless_removed(row_of(key))
    if row then all[#all + 1] = found_out(row) end
  end
  return all
end

function looks.progress()
  local since, workers, gate = math.max(desk.clock, time_of_book(raw)) - WORKER_S, 0, desk.gate
  for _, member in ipairs(members()) do
    if member.kind == 'worker' and member.heard >= since then workers = workers + 1 end
  end
  local numbers = {}
  for _, name in ipairs({ 'number', 'line', 'open', 'unread', 'parked', 'succeeded', 'failed', 'unresolved', 'purged', 'clock', 'next_start' }) do
    numbers[name] = text_of(desk[name])
  end
  return {
    numbers = numbers, workers = workers, origin = or_null(desk.origin), accounts = desk.accounts,
    terms = terms_out(), is_read = desk.is_read,
    gate = {
      gate.is_closed, text_of(gate['until']), text_of(gate.step), text_of(gate.probe),
      text_of(gate.probe_until),
    },
  }
end

function looks.ended_after()
  local after = '(' .. text_of(given.number)
  return { text_of(desk.number), call('ZRANGEBYSCORE', ENDS, after, '+inf') }
end

function looks.lessons_after() return lessons_after(given.number) end

local function is_refused(found)
  if type(found) ~= 'table' or not found.err then return false end
  return string.find(found.err, 'NOPERM', 1, true) or string.find(found.err, "can't run", 1, true)
    or string.find(found.err, "can't access", 1, true)
end

-- Each command, on a key of its own: a right that is missing shows before a step needs it.
function looks.open()
  local try, missing = given.try, {}
  for _, command in ipairs(given.commands) do
    if is_refused(redis.pcall(unpack(command))) then missing[#missing + 1] = command[1] end
  end
  redis.pcall('DEL', try)
  local memory = redis.pcall('INFO', 'memory')
  local policy = type(memory) == 'string' and string.match(memory, 'maxmemory_policy:([%w-]+)')
  local last = redis.pcall('XREVRANGE', LOG, '+', '-', 'COUNT', 1)
  return { missing = missing, policy = policy or NULL, last = last[1] and last[1][1] or '0-0' }
end

-- Steps.

local steps = {}

function steps.turn(now)
  local reply, was_made = turn(given, now, wall, keep_s)
  local text = cjson.encode(reply)
  return text, was_made and text
end

function steps.take(now)
  local reply, was_made = take(given, now, keep_s)
  return cjson.encode(take_out_of(reply)), was_made and pack(reply)
end

function steps.add(now) return cjson.encode(add(given.additions, now, wall)) end
function steps.remove(now) return cjson.encode(remove(given.key, now)) end
function steps.retry(now) return cjson.encode(retry(given.key, now)) end
function steps.nudge(now) return cjson.encode(nudge(given.key, now)) end
function steps.intend(now) return cjson.encode(intend(given, now, wall)) end

function steps.created(now)
  created(given.external_id, given.made, now, wall)
  return 'null'
end

if looks[verb] then return cjson.encode(looks[verb]()) end

local kept = given.seq and call('GET', REPLY)
if kept then
  local seq, reply = unpack_all(kept)
  if seq == given.seq then
    return verb == 'turn' and reply or cjson.encode(take_out_of(unpack_all(reply)))
  end
end

-- Refused before anything is changed where memory is full, or on a replica.
call('SET', V, FORM)
local answer, reply = steps[verb](clock_of(time_of_book(raw)))
if is_news then call('XADD', LOG, 'MAXLEN', '~', LOG_KEPT, '*', 'n', desk.number) end
if reply and given.is_leaving then
  call('DEL', REPLY)
elseif reply then
  call('SET', REPLY, pack(given.seq, reply), 'EX', REPLY_KEPT_S)
end
save_desk()
return answer
