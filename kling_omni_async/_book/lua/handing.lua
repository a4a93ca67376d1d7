-- One step of a reader: the rules of `handing.py`, in its order and its words.

local parked -- the keys of what was parked by this step

local function give_back(row, now, is_failed)
  local handed = row.handed
  row.holder, row.handed = nil, nil
  if not is_failed then
    if handed then row.deliveries = row.deliveries - 1 end
    row.at = row.ended
  elseif row.deliveries >= #AGAIN_S + 1 then
    move(row, 'parked')
    row.at = FAR
    parked[#parked + 1] = row.key
  else
    -- From the hand-out on: who starts again after a crash waits no longer than that.
    row.at = (handed or now) + AGAIN_S[math.max(0, row.deliveries - 1) + 1]
  end
end

local function receive(reader, row, ack, now, keep_s)
  if ack == 'DONE' then -- whoever has it now: it was handled
    move(row, 'read')
    row.holder, row.handed = nil, nil
    row.at = row.ended + keep_s
  elseif row.holder ~= reader then
    return
  elseif ack == 'HANDED' then
    if not row.handed then row.deliveries, row.handed = row.deliveries + 1, now end
  else
    give_back(row, now, ack == 'FAILED')
  end
  put(row)
  is_news = is_news or ack ~= 'HANDED'
end

local function leave(reader, now, keep_s)
  for _, key in ipairs(held_by(reader)) do
    local row = row_of(key)
    receive(reader, row, row.handed and 'FAILED' or 'BACK', now, keep_s)
  end
  drop_member(reader)
  is_news = true
end

local function free(reader, now, keep_s)
  for _, member in ipairs(members()) do
    local is_dead = member.heard < now - READER_S
    if member.kind == 'reader' and member.name ~= reader and is_dead then
      leave(member.name, now, keep_s)
    end
  end
end

-- Lets a reader alone have an outcome, also one that is still to come, unless another is to.
local function keep_for(reader, key)
  local row = row_of(key)
  if not row or (row.state ~= 'open' and row.state ~= 'unread') then return end
  if row.holder and member_of(row.holder) then return end
  row.holder = reader
  if row.state == 'unread' then row.at = FAR end
  put(row)
end

local function release(reader, key, now)
  local row = row_of(key)
  if not row or row.holder ~= reader then return end
  row.holder = nil
  if row.state == 'unread' then
    give_back(row, now, false)
    is_news = true
  end
  put(row)
end

-- Whether an outcome that was to be handed out is removed, or somebody else's.
local function is_lost(reader, receipt)
  if receipt[3] ~= 'HANDED' then return false end
  local row = row_of(receipt[1])
  return not row or row.number ~= receipt[2] or row.holder ~= reader
end

-- What a reader has, as a book sees it that lacks a step of it: a failover has lost that, and with
-- it what the reader acknowledged then. What it has still it knows by its number.
local function again(given)
  local parcels = {}
  for place, key in ipairs(held_by(given.reader)) do
    if place > MOST then break end
    local row = row_of(key)
    parcels[place] = { key, row.number, row.deliveries }
  end
  return parcels
end

local function parcels_for(given, now)
  local parcels = {}
  for _, found in ipairs(due(UNREAD, now, math.min(given.want, MOST))) do
    local row = row_of(key_of_member(found))
    row.holder, row.at = given.reader, FAR
    if given.is_handed then row.deliveries, row.handed = row.deliveries + 1, now end
    put(row)
    parcels[#parcels + 1] = { row.key, row.number, row.deliveries }
  end
  return parcels
end

-- Outcomes and notes are filled in when it is answered: kept replies stay small.
local function take(given, now, keep_s)
  local member = member_of(given.reader)
  if member and given.seq <= member.seq then return {}, false end -- it was answered before
  parked = {}
  free(given.reader, now, keep_s)
  for _, receipt in ipairs(given.receipts) do
    local row = row_of(receipt[1])
    if row and row.number == receipt[2] and (row.state == 'unread' or row.state == 'parked') then
      receive(given.reader, row, receipt[3], now, keep_s)
    end
  end
  for _, key in ipairs(given.keep) do keep_for(given.reader, key) end
  for _, key in ipairs(given.release) do release(given.reader, key, now) end
  if given.want > 0 then desk.is_read = true end
  local parcels = {}
  if given.is_leaving then
    leave(given.reader, now, keep_s)
  elseif member and member.seq < given.after then
    parcels = again(given)
  else
    parcels = parcels_for(given, now)
  end
  local lost = {}
  for _, receipt in ipairs(given.receipts) do
    if is_lost(given.reader, receipt) then lost[#lost + 1] = receipt[1] end
  end
  local first = first_at(UNREAD)
  if first and first >= FAR then first = nil end
  local reply = {
    parcels = parcels,
    next_s = first and math.max(0, first - now),
    is_empty = desk.open == 0 and desk.unread == 0,
    parked = parked,
    lost = lost,
    origin = desk.origin,
  }
  if not given.is_leaving then put_member(given.reader, 'reader', given.seq, now) end
  return reply, true
end

local function take_out_of(reply)
  local parcels = {}
  for _, each in ipairs(reply.parcels or {}) do
    local key, row = each[1], row_of(each[1])
    if row and row.number == each[2] and row.has_outcome then -- else it was removed since
      parcels[#parcels + 1] = {
        key, text_of(each[2]), content(OUTCOMES, key), or_null(content(NOTES, key)),
        or_null(content(ORDERS, key)), text_of(each[3]),
      }
    end
  end
  return copy(reply, { parcels = parcels, next_s = number_or_null(reply.next_s) })
end
