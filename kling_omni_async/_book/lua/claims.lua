-- One step of a worker: the rules of `claims.py`, in its order and its words.

-- The gate.

local function limit(started, asked_s, jitter, now)
  local gate = desk.gate
  if started < gate['until'] then return end
  local pause_s
  if asked_s == nil then
    pause_s = BACKOFF_S[math.min(gate.step, #BACKOFF_S - 1) + 1] * jitter
    gate.step = gate.step + 1
  else
    pause_s = math.min(asked_s, MAX_RETRY_AFTER_S)
  end
  gate.is_closed, gate['until'], gate.probe = true, now + pause_s, 0
  is_news = true
end

local function pass_gate(settle, now)
  local gate, started = desk.gate, now - settle.started_ago
  if settle.is_limited then
    limit(started, settle.limit_s, settle.jitter, now)
    return
  end
  if gate.probe == settle.token then
    gate.probe = 0 -- another goes first, unless this has opened the gate
    is_news = true
  end
  if settle.is_readable and started >= gate['until'] then
    gate.is_closed, gate.step, gate.probe = false, 0, 0
  end
end

local function gate_opens(now)
  local gate = desk.gate
  if not gate.is_closed then return now end
  return math.max(gate['until'], gate.probe ~= 0 and gate.probe_until or now)
end

-- What a worker brings.

local function prove(settle, account)
  local known, is_known = desk.accounts, false
  for _, each in ipairs(known) do is_known = is_known or each == account end
  if settle.is_task and not is_known then
    known[#known + 1] = account
    if #known > MOST_ACCOUNTS then table.remove(known, 1) end
    is_known = true
  end
  return #known == 0 or is_known
end

local function believed(row, settle, is_proved, is_strange)
  if not settle.is_not_found then return settle end
  local is_given_up = settle.said == 'FINAL' and not settle.is_settled
  if is_given_up and not is_strange then return settle end
  settle = copy(settle, {})
  -- To a key that has seen none of the tasks that others see, all are unknown.
  if not is_proved then
    settle.said, settle.doubt, settle.fault = 'CUT', nil, nil
  elseif row.seen then -- what was once seen as a task never ends as not found
    settle.said, settle.doubt = 'FAULT', nil
  end
  return settle
end

local function note_query(row, settle, now)
  local ended, said = now - settle.ended_ago, settle.said
  if said == 'CUT' then -- it says nothing, but perhaps why
    row.fault = settle.fault or row.fault
    return
  end
  row.queries = row.queries + 1
  row.fault = settle.fault
  if settle.is_task then row.seen, row.task = ended, settle.task or row.task end
  if settle.born_ago and not row.born then row.born = now - settle.born_ago end
  if said == 'PENDING' then row.looked = ended end
  if said == 'PENDING' or said == 'FINAL' then
    row.doubt_kind, row.doubt_count, row.doubt_counted = nil, nil, nil
  elseif settle.doubt then
    row.doubt_kind, row.doubt_count = settle.doubt[1], settle.doubt[2]
    row.doubt_counted = now - settle.doubt[3]
  end
end

local function end_by(row, settle, now)
  note_query(row, settle, now)
  if row.token ~= settle.token then break_claim(row) end -- somebody else may be asking
  row.token, row.answered = 0, math.max(row.answered, now - settle.ended_ago)
  end_entry(row, now, settle.outcome, settle.count, settle.is_settled)
  hold(row)
  if settle.lesson then add_lesson(settle.lesson) end
end

local function wait_on(row, settle, now)
  row.token, row.is_new = 0, false
  row.answered = now - settle.ended_ago
  if not row.first then row.first = now - settle.started_ago end
  -- Whatever is asked for: a fault costs one pause, and never adds load.
  local pause_s = row.is_nudged and 0 or settle.pause_s
  row.is_nudged = false
  row.at = row.answered + math.max(pause_s, low_s())
  row.due = row.at
end

local function settle_one(settle, account, now, wall)
  pass_gate(settle, now)
  local is_proved = prove(settle, account)
  local row = row_of(settle.key)
  if row and settle.said == 'FOUND' then
    found_task(row, settle, now, wall)
    return false
  end
  if not row or row.state ~= 'open' then return false end
  local was_seen_lately = row.seen and now - row.seen < PROVED_S
  local is_strange = not is_proved and settle.is_not_found and was_seen_lately or false
  settle = believed(row, settle, is_proved, is_strange)
  local is_mine = row.token == settle.token
  -- The first final word wins; what is no word of the API counts by its claim alone.
  if settle.said == 'FINAL' and (is_mine or settle.is_word) then
    end_by(row, settle, now)
  elseif is_mine and settle.said == 'UNASKED' then
    row.token, row.at = 0, row.due
    is_news = true
  elseif is_mine then
    note_query(row, settle, now)
    wait_on(row, settle, now)
  elseif settle.is_task and not row.seen then -- late, but it was seen
    row.seen = now - settle.ended_ago
  else
    return is_strange
  end
  put(row)
  return is_strange
end

-- What a worker gets.

local function gap_s(terms)
  return terms and terms.max_rate and 1 / terms.max_rate or 0
end

local function join(given)
  local before = desk.terms
  if not given then return false end
  if before and before.low == given.low and before.high == given.high
    and before.max_rate == given.max_rate and before.confirmations == given.confirmations
    and before.timeout == given.timeout then
    return false
  end
  desk.terms = given
  desk.next_start = desk.next_start + (gap_s(given) - gap_s(before)) -- from the last start
  is_news = true
  return before ~= nil
end

local function claim(key, given, now)
  local row, gate = row_of(key), desk.gate
  row.token, row.is_nudged = next_number(), false
  -- One score for lease and due time: who comes back late finds it given to another.
  row.at = now + given.lease_s
  put(row)
  if gate.is_closed then gate.probe, gate.probe_until = row.token, now + given.probe_s end
  return row
end

local function reach_s(given)
  return HORIZON_S + math.min(given.ahead_s, MOST_AHEAD_S)
end

-- How many starts the pace has left within a worker's reach, or one more: no more rows are looked at.
local function starts_left(now, reach)
  local gap = gap_s(desk.terms)
  if gap == 0 then return MOST end
  local left = (now + reach - math.max(now, desk.next_start)) / gap
  return math.min(MOST, math.max(0, (left < 0 and math.ceil(left) or math.floor(left)) + 2))
end

-- The generic cell rate algorithm, no burst; no line has two starts in a row while another waits.
local function starts(given, now)
  local claims, reserved = {}, {}
  local reserve, want = math.min(given.reserve, MOST), 0
  if gate_opens(now) <= now then
    want = math.min(given.want, desk.gate.is_closed and 1 or starts_left(now, reach_s(given)))
  end
  local lines, heads = { due(NEW, now, want), due(DUE, now, want) }, { 1, 1 }
  while true do
    local start = math.max(now, desk.next_start)
    if start > now + reach_s(given) then break end
    local line
    for step = 1, 3 do
      local each = (desk.line + step) % 3
      local waits = each == 0 and reserve > 0
        or each > 0 and want > 0 and lines[each][heads[each]] ~= nil
      if waits then
        line = each
        break
      end
    end
    if not line then break end
    desk.line, desk.next_start = line, start + gap_s(desk.terms)
    if line == 0 then
      reserve = reserve - 1
      reserved[#reserved + 1] = text_of(start - now)
    else
      want = want - 1
      local member = lines[line][heads[line]]
      heads[line] = heads[line] + 1
      local row = claim(key_of_member(member), given, now)
      claims[#claims + 1] = { row_out(row), text_of(start - now) }
    end
  end
  return claims, reserved
end

local function next_s(now, reach, is_short)
  local opens, first = gate_opens(now), nil
  for _, zset in ipairs({ DUE, NEW }) do
    local at = first_at(zset)
    if at then first = math.min(first or FAR * 2, math.max(at, opens)) end
  end
  if is_short then first = math.min(first or now, now) end
  if not first then return NULL end
  -- Before what was given out has started: half of the horizon is for the turn's own way.
  local more = desk.next_start - (reach - HORIZON_S / 2)
  return text_of(math.max(0, math.max(first, more) - now))
end

local function purge_now_and_then(now, keep_s)
  if now < desk.purged + PURGE_S then return {} end
  for _, member in ipairs(members()) do
    if member.kind == 'worker' and member.heard < now - MEMBER_KEPT_S then
      drop_member(member.name)
    end
  end
  local dropped, is_more = purge(now, keep_s)
  if not is_more then desk.purged = now end
  if #dropped > 0 then is_news = true end
  return dropped
end

local function turn(given, now, wall, keep_s)
  if given.origin and desk.origin and desk.origin ~= given.origin then
    return { now = text_of(now), other_origin = desk.origin }, false
  end
  local member = member_of(given.worker)
  if member and given.seq <= member.seq then -- it wanders late, and was answered before
    return { now = text_of(now), terms = terms_out() }, false
  end
  if not desk.terms and not given.terms then -- all was lost: first the pace, then the starts
    return { now = text_of(now), terms = NULL }, false
  end
  desk.origin = desk.origin or given.origin
  local differs, is_stranger = join(given.terms), false
  for _, settle in ipairs(given.settles) do
    if settle_one(settle, given.account, now, wall) then is_stranger = true end
  end
  for _, each in ipairs(given.limits) do
    limit(now - each[1], or_nil(each[2]), each[3], now)
  end
  local claims, reserved = {}, {}
  if not given.is_leaving and not is_stranger then claims, reserved = starts(given, now) end
  local reply = {
    now = text_of(now),
    claims = claims,
    reserved = reserved,
    next_s = next_s(now, reach_s(given), #reserved < given.reserve),
    gate_s = text_of(desk.gate.is_closed and math.max(0, desk.gate['until'] - now) or 0),
    terms = terms_out(),
    lessons = lessons_after(given.lessons_after),
    is_stranger = is_stranger,
    differs = differs,
    dropped = purge_now_and_then(now, keep_s),
    is_read = desk.is_read,
  }
  if given.is_leaving then
    drop_member(given.worker)
    is_news = true
  else
    put_member(given.worker, 'worker', given.seq, now)
  end
  return reply, true
end
