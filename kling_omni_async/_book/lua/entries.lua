-- What becomes of the entries of a book: the rules of `entries.py`, in its order and its words.

local IS_END = { unread = true, read = true, parked = true }

local function low_s()
  return desk.terms and desk.terms.low or 0
end

local function count(row, by)
  local state = row.state
  if state == 'open' or state == 'unread' or state == 'parked' then
    desk[state] = desk[state] + by
  end
  if row.count and IS_END[state] then desk[row.count] = desk[row.count] + by end
end

local function move(row, state)
  count(row, -1)
  row.state = state
  if state ~= 'open' then row.is_new = false end
  count(row, 1)
end

local function drop_entry(row)
  count(row, -1)
  drop(row.key)
end

local function forget(row)
  drop_entry(row)
  local wish = row.external_id and wish_of(row.external_id)
  if wish and not wish.is_keyed then drop_wish(wish.external_id) end
end

local function is_intent(row)
  return string.sub(row.key, 1, 1) == INTENT
end

-- What users do.

local function new_row(key, now, wall)
  local row = {
    key = key, state = 'open', at = 0, number = next_number(), is_new = true, due = 0, token = 0,
    added = now, added_at = wall, queries = 0, answered = -FAR, is_nudged = false,
    has_outcome = false, is_settled = false, deliveries = 0,
  }
  count(row, 1)
  return row
end

local function add_one(given, now, wall)
  local before = row_of(given.task_id)
  if before and before.state ~= 'removed' then return false end
  local row = new_row(given.task_id, now, wall)
  row.at = now + given.first_s
  row.external_id, row.kind, row.task = given.external_id, given.kind, given.task
  row.holder = given.holder
  if given.age_s then row.born = now - given.age_s end
  if given.age_s or given.task then row.seen = now end
  if before then -- its pause goes on: to remove and to add must not poll faster
    row.at = math.max(now, before.at)
    row.is_new, row.answered = false, before.answered
    row.external_id = row.external_id or before.external_id
  end
  row.due = row.at
  put(row)
  if given.note or given.order then put_contents(row.key, given.note, given.order) end
  is_news = true
  return true
end

local function add(additions, now, wall)
  local are_new = {}
  for place, given in ipairs(additions) do are_new[place] = add_one(given, now, wall) end
  return are_new
end

local function unless_removed(row)
  if row and row.state ~= 'removed' then return row end
  return nil
end

local function row_of_wish(wish)
  return unless_removed(row_of(wish.task_id or (INTENT .. wish.external_id)))
end

local function entry_of(key)
  local row = row_of(key) or row_of(INTENT .. key)
  if row then return unless_removed(row) end
  local wish = wish_of(key)
  return wish and row_of_wish(wish)
end

local function may_be_asked(row)
  return row.answered + low_s()
end

local function break_claim(row)
  if row.token ~= 0 then
    row.token, row.answered = 0, math.max(row.answered, row.at - low_s())
  end
end

local function drop_outcome(row)
  if row.has_outcome then call('HDEL', OUTCOMES, row.key) end
  row.has_outcome = false
end

local function remove(key, now)
  local row = entry_of(key)
  if not row then return false end
  is_news = true
  break_claim(row)
  local kept_until = row.state == 'open' and row.at or may_be_asked(row)
  local was_asked = row.answered > -FAR or is_intent(row) -- its process may be posting
  if kept_until <= now or not was_asked then
    forget(row)
    return true
  end
  move(row, 'removed')
  row.at, row.holder, row.handed = kept_until, nil, nil
  row.task, row.fault, row.ended = nil, nil, nil
  drop_outcome(row)
  put_contents(row.key, nil, nil)
  put(row)
  return true
end

local function reopen(row, now)
  count(row, -1)
  row.state, row.count = 'open', nil
  count(row, 1)
  row.at = math.max(now, may_be_asked(row))
  row.due = row.at
  drop_outcome(row)
  row.ended, row.holder, row.handed, row.first = nil, nil, nil, nil
  row.doubt_kind, row.doubt_count, row.doubt_counted = nil, nil, nil
  row.deliveries = 0
  if is_intent(row) then row.queries = 0 end -- it is looked for as often as at first
end

local function retry(key, now)
  local row = entry_of(key)
  if not row then return false end
  if row.state == 'parked' then
    move(row, 'unread')
    row.at, row.deliveries = now, 0
  elseif row.state ~= 'open' and not row.is_settled then
    reopen(row, now)
  else
    return false
  end
  put(row)
  is_news = true
  return true
end

local function nudge(key, now)
  local row = entry_of(key)
  if not row or row.state ~= 'open' or is_intent(row) then return false end
  if row.token ~= 0 and row.at > now then
    row.is_nudged = true -- the answer to what is under way may be from before
  else
    row.at = math.max(now, math.min(row.at, may_be_asked(row)))
    row.due = row.at
  end
  put(row)
  is_news = true
  return true
end

-- What ends.

local function end_entry(row, now, outcome, kind_of_count, is_settled)
  count(row, -1)
  row.state, row.is_new, row.count = 'unread', false, kind_of_count
  count(row, 1)
  row.ended, row.is_settled, row.has_outcome = now, is_settled, true
  row.number, row.at, row.is_nudged = next_number(), now, false
  call('HSET', OUTCOMES, row.key, outcome)
  call('ZADD', ENDS, row.number, row.key)
  call('ZREMRANGEBYRANK', ENDS, 0, -ENDS_KEPT - 1)
  is_news = true
end

-- Keeps an outcome for the reader that is to have it, if that is still there.
local function hold(row)
  if row.holder and member_of(row.holder) then row.at = FAR else row.holder = nil end
end

local function purge(now, keep_s)
  local unread, dropped, is_more = ended_before(now - keep_s, MOST), {}, false
  for _, found in ipairs({ due(READ, now, MOST), due(REMOVED, now, MOST), unread }) do
    if #found == MOST then is_more = true end
    for _, member in ipairs(found) do
      local key = key_of_member(member)
      forget(row_of(key))
      if found == unread then dropped[#dropped + 1] = key end
    end
  end
  return dropped, is_more
end

-- Intents.

local function intend(intent, now, wall)
  local key, wish = INTENT .. intent.external_id, wish_of(intent.external_id)
  if wish then
    local row = row_of_wish(wish)
    return { wish_out(wish), row and row_out(row) or NULL, text_of(now) }
  end
  put_wish({
    external_id = intent.external_id, digest = intent.digest, is_keyed = intent.is_keyed,
  })
  local row = new_row(key, now, wall)
  row.is_new, row.external_id, row.kind = false, intent.external_id, intent.kind
  row.at = now + intent.lease_s
  row.due = row.at
  put(row)
  put_contents(key, intent.note, intent.order)
  is_news = true
  return NULL
end

local function made_none(external_id)
  local wish, row = wish_of(external_id), row_of(INTENT .. external_id)
  if not wish or wish.task_id then return end
  drop_wish(external_id)
  if row then drop_entry(row) end
end

-- Keeps a task that was created; one that is there already has a name, and was seen.
local function take_up(made, now, wall)
  add_one(made, now, wall)
  local row = row_of(made.task_id)
  row.external_id = made.external_id
  if not row.seen then row.seen = now end
  put(row)
end

local function made_one(external_id, made, now, wall)
  local wish, intent = wish_of(external_id), row_of(INTENT .. external_id)
  local was_known = wish and wish.task_id
  if wish and not was_known then put_wish(copy(wish, { task_id = made.task_id })) end
  made = copy(made, { external_id = external_id })
  if not intent then
    -- Where it was found before, it is there, or was removed since.
    if not wish or was_known ~= made.task_id then take_up(made, now, wall) end
  elseif intent.state ~= 'removed' then
    local note, order = content(NOTES, intent.key), content(ORDERS, intent.key)
    drop_entry(intent)
    take_up(made, now, wall)
    local own_note, own_order = content(NOTES, made.task_id), content(ORDERS, made.task_id)
    put_contents(made.task_id, own_note or note, own_order or order)
  end
end

local function created(external_id, made, now, wall)
  is_news = true
  if made then made_one(external_id, made, now, wall) else made_none(external_id) end
end

local function found_task(intent, settle, now, wall)
  made_one(intent.external_id, {
    task_id = settle.task_id, task = settle.task, kind = intent.kind, age_s = settle.born_ago,
    first_s = settle.pause_s - settle.ended_ago,
  }, now, wall)
  local row = row_of(settle.task_id)
  if row and row.state == 'open' and row.token == 0 then
    -- The look for it has asked for it, too.
    row.answered = math.max(row.answered, now - settle.ended_ago)
    row.at = math.max(row.at, may_be_asked(row))
    row.due = row.at
    put(row)
  end
end
