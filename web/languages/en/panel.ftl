# The words of the panel, in English.

## Frame
site-name = { $commune } town hall
skip = Skip to content
places = Sections
place-home = Home
place-announcements = Announce
place-conditions = To look at
place-demonstration = Demo
place-data = Data
place-accounts = Accounts
place-waiting = to look at
about-link = Accessibility, data, legal
back-home = Back to the home page
save = Save
cancel = Cancel
for-technician = Particulars for the technician

## Numbers, dates, units
age-now = just now
age-seconds = { $n }{"\u00A0"}s ago
age-minutes = { $n }{"\u00A0"}min ago
age-hours = { $n }{"\u00A0"}h ago
age-days = { $n }{"\u00A0"}d ago
age-never = never received
hour = { $h }:{ $m }
hour-tick = { $h }:00
first-of-month = 1
date = { $weekday } { $day } { $month } { $year }
moment = { $date } at { $hour }
date-unknown = unknown date
week-of = week of { $date }
weekday-1 = Monday
weekday-2 = Tuesday
weekday-3 = Wednesday
weekday-4 = Thursday
weekday-5 = Friday
weekday-6 = Saturday
weekday-7 = Sunday
weekday-short-1 = Mon
weekday-short-2 = Tue
weekday-short-3 = Wed
weekday-short-4 = Thu
weekday-short-5 = Fri
weekday-short-6 = Sat
weekday-short-7 = Sun
month-1 = January
month-2 = February
month-3 = March
month-4 = April
month-5 = May
month-6 = June
month-7 = July
month-8 = August
month-9 = September
month-10 = October
month-11 = November
month-12 = December
bytes-kilo = kB
bytes-mega = MB
bytes-giga = GB
unit-watt = W
unit-kilowatt = kW
unit-watt-hour = Wh
unit-kilowatt-hour = kWh
unit-volt-ampere = VA
unit-kilovolt-ampere = kVA
unit-var = var
unit-var-hour = varh
unit-kilovar-hour = kvarh
unit-volt = V
unit-ampere = A
unit-milliampere = mA
unit-hertz = Hz
unit-celsius = °C
unit-kelvin = K
unit-percent = %
unit-ppm = ppm
unit-litre = L
unit-cubic-metre = m³
unit-litre-per-hour = L/h
unit-litre-per-minute = L/min
unit-cubic-metre-per-hour = m³/h
unit-hectopascal = hPa
unit-bar = bar
unit-lux = lux
unit-decibel = dB
unit-microgram-per-cubic-metre = µg/m³
unit-second = s
unit-minute = min
unit-hour = h
unit-day = d
unit-metre = m
unit-millimetre = mm
unit-centimetre = cm
unit-degree = °
unit-none = -
state-closed = Closed
state-open = Open
state-open-power = Open: too much power drawn
state-open-voltage = Open: over-voltage
state-open-shed = Open: load shedding
state-open-remote = Opened remotely
state-open-heat = Open: overheating
state-no = No
state-yes = Yes
state-not-announced = Not applicable
state-blue = Blue
state-white = White
state-red = Red
label-index = Index
label-flow = Flow
label-power = Power
label-state = State
quality-suspect = Doubtful value
quality-stale = Old value
quality-bad = No value
quality-why = { $word }: { $why }
quality-late = Old value: nothing new came
quality-never = Nothing received yet
why-out-of-range = outside the expected limits
why-implausible-step = implausible step
why-warming-up = the device is warming up
why-device-fault = the device reports a fault
why-not-a-number = unreadable measurement
why-no-answer = the device does not answer
why-degraded = the device is not sure of itself

## Home
home-title = Home
state-fine = All is well.
state-things = { $n ->
    [one] There is { $shown } thing to look at.
   *[other] There are { $shown } things to look at.
}
state-urgent = { $n ->
    [one] There is { $n } thing to look at, without delay.
   *[other] There are { $n } things to look at, { $urgent } of them urgent.
}
state-more = See what to do
tasks = What would you like to do?
task-announce = Make an announcement
task-announce-about = Write, listen, send
task-look = See what needs a look
task-look-about = Breakdowns, leaks, silent devices
task-values = Read the meters
task-values-about = Electricity, water, air
task-data = See where the data goes
task-data-about = Who receives it, with whose consent
task-accounts = Manage accounts
task-accounts-about = Who may enter
task-account = My account
task-account-about = Language, password
values-title = Latest values
values-more = Other measurements ({ $shown })
values-none = No device is connected yet.

## A point
spans = Time shown
span-day = Day
span-week = Week
span-month = Month
turn-before = Earlier
turn-after = Later
chart-title = { $label }, { $when }
summary-nothing = No measurement in this period.
summary-gauge = Between { $low } and { $high }; { $mean } on average.
summary-counter = Total: { $total }. Highest: { $most } ({ $when }).
table-summary = See the figures in a table
table-when = When
table-min = Lowest
table-mean = Mean
table-max = Highest
table-amount = Consumption
table-what = What
table-since = Since
table-until = Until
table-who = Who

## Announcements
announcements-title = Announcements
announcement-sent = Done. The announcement is in the queue.
announcement-stopped = The announcement is stopped.
queue-title = Now
queue-none = The loudspeakers are silent.
queue-waiting = Waiting
queue-held-quiet-hours = It will be said when quiet hours end. Only an alert may go before.
queue-held-daily-budget = Today's minutes are spent: it will be said tomorrow. Only an alert may go before.
queue-held-unknown-time = The box does not know the time yet: it waits until it does.
queue-preparing = Being prepared
queue-playing = Playing
queue-stop = Stop
asked-by = { $who }, { $when }
write-title = Write an announcement
field-text = Text of the announcement
text-hint = Write as you speak. A chime comes before the text.
field-class = Kind
class-ambiance = Ambiance
class-information = Information
class-important = Important
class-alert = Alert
class-information-about = Waits its turn and keeps quiet hours.
class-alert-about = Cuts everything else, day and night. For danger.
field-zones = Where
preview-ready = This is what people will hear:
listen = Listen
send = Send
confirm-title = Send this alert?
confirm-about = It will cut any other announcement and be heard even at night.
confirm-zones = Zones:
confirm-send = Yes, send the alert
confirm-edit = Change the text
refused-empty = Write the text to be said.
refused-too-long = The text has { $length } characters; { $most } at most can be said.
refused-no-zone = Tick at least one zone.
refused-unknown-zone = The zone “{ $zone }” is gone. Choose another.
refused-queue-full = { $n ->
    [one] { $shown } announcement is already waiting. Stop it or wait.
   *[other] { $shown } announcements are already waiting. Stop one or wait.
}
refused-voice = The text cannot be said: no voice works on this box. Tell the technician.
refused-not-kept = The announcement could not be saved. Try again; if it lasts, tell the technician.
journal-title = Already played
journal-none = Nothing has been played yet.
end-played = heard to the end ({ $lasted })
end-cut = cut by announcement no. { $by }, played again afterwards
end-stopped = stopped by { $by }
end-failed = not heard

## To look at
conditions-title = To look at
condition-of = { $title }: { $subject }
subject-device = device “{ $name }”
condition-since = Since:
condition-seen = Seen by { $who }, { $when }
condition-acknowledge = I have seen it
severity-notice = Worth knowing
severity-warning = To repair
severity-alarm = Urgent
faults-title = The settings file has faults
faults-about = What is wrongly written is not used; all the rest works. Show this to the technician.
closed-title = Over
closed-none = Nothing yet.
gateway-title = The box
store-readings = { $n ->
    [one] { $shown } reading kept
   *[other] { $shown } readings kept
}
store-size = { $size } used of { $limit }
store-lost = { $n ->
    [0] No reading lost
    [one] { $shown } reading lost
   *[other] { $shown } readings lost
}
start-last = Last start: { $when } ({ $why }).
start-last-undated = Last start: { $why }.
start-ran = It had been running for { $ran } at least.
start-line = { $when }: { $why }
start-first = first start
start-restarted = program stopped and started again on request
start-rebooted = box switched off or restarted in order
start-power-cut = sudden end, a power cut most likely
start-hardware-watchdog = the box no longer answered and restarted by itself
start-watchdog = the program no longer answered and was restarted
start-crash = the program fell and was restarted
starts-summary = Earlier starts
supply-unwatched = Supply: not watched, this system tells nothing of it
supply-good = Power supply: good
supply-low = Power supply: too weak now
supply-was-low = { $n ->
    [one] Power supply: good now, too weak { $shown } time ({ $when })
   *[other] Power supply: good now, too weak { $shown } times (last: { $when })
}
card-written = Memory card: { $size } written since it was installed, { $date }
card-written-undated = Memory card: { $size } written since it was installed
card-room = Free space: { $free } of { $all }
card-syncs = Time to write: { $usual } usually, { $most } at most nineteen times in twenty
card-life = Wear told by the memory itself: { $percent }% at most
units-summary = The parts of the box
unit-running = running
unit-pausing = fell, starting again
unit-gave-up = given up, waits for somebody
unit-stopped = stopped

condition-configuration-fault-title = A setting is wrongly written
condition-configuration-fault-todo = This setting is not used, the rest works. Show the particulars to the technician.
condition-configuration-set-aside-title = The file on the card is not used
condition-configuration-set-aside-todo = The box runs on its last sound settings. RESULTAT.txt, on the card, tells the technician what to correct in clocher.toml.
condition-port-unplugged-title = A device is unplugged
condition-port-unplugged-todo = Check the USB plug or the cable. Once it is back, everything resumes by itself.
condition-device-silent-title = A device no longer answers
condition-device-silent-todo = Check that it is switched on and its cable holds. If it still does not answer after ten minutes, call the technician.
condition-device-fault-title = A device sends unreadable measurements
condition-device-fault-todo = See whether it shows an error; switch it off and on again if you can. Otherwise call the technician.
condition-point-out-of-range-title = A value is outside its limits
condition-point-out-of-range-todo = See whether the value is possible. If not, the sensor should be checked.
condition-water-leak-title = Water flows when nobody should use any
condition-water-leak-todo = Check taps and toilets, then close the water inlet if nothing explains it.
condition-water-meter-silent-title = A water meter has counted nothing for a day
condition-water-meter-silent-todo = That is normal if nobody came. Otherwise check the meter's wire.
condition-air-stale-title = The air of a room should be renewed
condition-air-stale-todo = Open the windows for ten minutes.
condition-unit-gave-up-title = A part of the box has stopped
condition-unit-gave-up-todo = The rest goes on. Unplug the box and plug it in again; if it comes back, call the technician.
condition-clock-untrusted-title = The time of the box is not certain
condition-clock-untrusted-todo = Once the internet link works, the clock sets itself and readings already taken are dated again. Nothing to do unless it lasts more than a day: then call the technician.
condition-store-damaged-title = The memory of the box was damaged
condition-store-damaged-todo = What could be saved was; what is missing is counted under “Data”. A power cut may be enough to cause this. If it happens again, have the card replaced by the technician.
condition-store-refuses-writes-title = The memory card is full or refuses to write
condition-store-refuses-writes-todo = The box still measures and announces, but cannot keep for long what it measures. Do not switch it off: what waits would be lost. Call the technician today.
condition-readings-lost-title = Readings were lost
condition-readings-lost-todo = They will not come back. How many, when and why: see “Data”. Tell the technician, then press “I have seen it”.
condition-data-budget-title = The month's data allowance is running out
condition-data-budget-todo = Beyond it only alarms leave; the readings wait here and nothing is lost. If the subscription allows it, ask the technician to raise the allowance.
condition-peer-absent-title = A central server no longer fetches its readings
condition-peer-absent-todo = Nothing is lost: the readings wait for it here. Tell its operator if it lasts.
condition-broker-silent-title = The sensors' message service does not answer
condition-broker-silent-todo = It starts again by itself. If it lasts, unplug the box and plug it in again.
condition-announcement-failed-title = An announcement was not heard
condition-announcement-failed-todo = Check that the amplifier is on, then send it again.
condition-voice-missing-title = The box has no voice or no sound
condition-voice-missing-todo = Written announcements cannot be said. Call the technician.
condition-pin-unusable-title = A relay or a contact cannot be used
condition-pin-unusable-todo = The technician must check the wiring and the setting.
condition-supply-weak-title = Power supply too weak
condition-supply-weak-todo = Use the official power supply of the Raspberry Pi, with a short cable and no USB hub. A voltage too low makes the box restart and harms its memory card. This message goes a day after the last drop.
condition-card-slow-title = The memory card has become slow
condition-card-slow-todo = Nothing is lost, but a card that slows down is often near its end. Have the technician plan its replacement.
condition-card-nearly-full-title = The memory card is nearly full
condition-card-nearly-full-todo = The box still works, but soon it will no longer be able to keep what it measures. Have the technician come this week: something takes up the room, or a larger card is needed.
condition-card-worn-title = The memory card has been used a lot
condition-card-worn-todo = It still works. Have the technician plan its replacement within some months.
condition-contact-alarm-title = A contact says that something is wrong
condition-contact-alarm-todo = Go and see.

## Demonstration
demonstration-title = Demonstration
demonstration-lead = The box measures without pause. Its internet link drops every few minutes. This is what becomes of the readings.
link-up-always = Link up
link-up = Link up for { $since }
link-down = Link down for { $since }
outage-none = No outage yet
outage-heading = Outage no. { $n }
outage-sentence-none = The first outage comes soon.
outage-sentence-during = The link is down: { $buffered } readings of { $produced } are already safe here.
outage-sentence-catching-up = The link is back: { $pulled } readings of { $produced } have arrived, the others follow.
outage-sentence-after = { $n ->
    [0] The outage lasted { $lasted }. There was nothing to measure.
    [one] The outage lasted { $lasted }. The reading taken meanwhile has arrived.
   *[other] The outage lasted { $lasted }. All { $produced } readings taken meanwhile have arrived.
}
outage-sentence-lost = The outage lasted { $lasted }. Of { $produced } readings, { $lost } are lost.
outage-totals = Since the start: { $produced } readings taken, { $pulled } delivered, { $lost } lost.
figure-produced = Taken
figure-buffered = Safe on the card
figure-pulled = Delivered since
figure-lost = Lost

## Data and access
data-title = Data and access
data-lead = What the box keeps, who receives it, and what you can erase.
data-who = Who receives the readings
data-register = See the register
data-personal = Personal data
data-consents = See and record consents
data-consents-see = See the consents
data-kept = What the box keeps
data-classes = Who may receive what
data-erase = Erasing data
data-erase-about = You can erase for good what a device has measured, all of it or up to a date.
data-erase-go = Choose what to erase
list-and = { $first } and { $last }
partners-none = No server is registered: the readings do not leave the box.
partner-may = May take the { $classes } readings.
partner-former = No longer registered: it can take nothing more.
partner-never = Has never come yet.
partner-begun = Has just begun.
partner-upto-hour = Has received everything up to { $hour }.
partner-upto-date = Has received everything up to { $date } at { $hour }.
partner-upto-age = The last reading it received was taken { $age }.
partner-upto-number = Has received everything up to reading no. { $shown }.
class-public = Public
class-public-many = public
class-public-about = They tell nothing about anybody: the air of a hall, the rain. Any registered server may receive and publish them.
class-internal = Internal
class-internal-many = internal
class-internal-about = For the bodies that work with the commune. They are not published.
class-personal = Personal
class-personal-many = consented personal
class-personal-about = They tell something about a person: when they are there, how they live. They leave only with that person's written consent, which may be withdrawn at any time.
class-count = { $n ->
    [0] No device
    [one] { $shown } device
   *[other] { $shown } devices
}
classes-hint = Devices are sorted in the settings of the box, with the technician.
kept-nothing = Nothing is kept yet.
kept-since = { $count }, the oldest from { $date }.
kept-size = { $size } used of { $limit } set aside.
kept-oldest-first = When room runs short, readings a server has already received go first, beginning with the oldest.
kept-aside = { $n ->
    [one] A damaged part of the memory was put aside ({ $size }). The technician can look at it.
   *[other] { $n } damaged parts of the memory were put aside ({ $size }). The technician can look at them.
}
gaps-none = No reading was lost.
gaps-older = { $n ->
    [one] Before that, { $shown } more reading lost or removed.
   *[other] Before that, { $shown } more readings lost or removed.
}
gaps-erased = { $n ->
    [one] { $shown } reading erased at the wish of the town hall.
   *[other] { $shown } readings erased at the wish of the town hall.
}
gap = { $what } { $when }: { $cause }.
gap-lost = { $n ->
    [one] { $shown } reading lost
   *[other] { $shown } readings lost
}
gap-removed = { $n ->
    [one] { $shown } reading removed
   *[other] { $shown } readings removed
}
gap-at = on { $date } at { $hour }
gap-about = around { $date } at { $hour }
gap-day = on { $date } between { $from } and { $to }
gap-days = between { $from } at { $from_hour } and { $to } at { $to_hour }
gap-unknown = at an unknown date
gap-size-limit = the room set aside was full
gap-size-limit-received = room was short, but a server had already received them
gap-damage = the memory card was damaged
gap-card-refused = the memory card refused to write
gap-erased = erased at the wish of the town hall

## Register
access-title = Who took what, when
access-lead = Central servers come here to fetch the readings. Each visit is written down.
access-month = This month: { $used } exchanged with them.
access-month-of = This month: { $used } of { $limit }.
access-month-spent = This month: { $used } of { $limit }. The allowance is used up: only alarms leave, the rest waits here.
access-none = Nobody has taken anything yet.
access-last = Last visit:
access-total = { $n ->
    [one] { $shown } reading in all
   *[other] { $shown } readings in all
}
access-hint = What is being taken now is added here every ten minutes, to spare the card.
access-register = Register
access-what = { $n ->
    [0] nothing new
    [one] { $count } reading (no. { $to })
   *[other] { $count } readings (no. { $from } to { $to })
}
access-until = { $from }, until { $until }
access-again = { $n ->
    [one] { $count } reading asked for again (no. { $to })
   *[other] { $count } readings asked for again (no. { $from } to { $to })
}
access-newer = Newer
access-older = Older

## Consents
consents-title = Consents about personal data
consents-lead = A personal reading leaves only with the person's written consent. Once it is withdrawn, sending stops at once.
consents-no-points = No reading is classed as personal.
consents-no-servers = No server is allowed to ask for personal data: all of it stays here.
consents-unwritten = A withdrawal is not on the memory card yet. It counts already, but would be forgotten if the box stopped. Open this page again in a minute; if this message stays, call the technician.
consents-full = There are too many consents on record. Call the technician.
personal-count = { $n ->
    [one] { $shown } device measures something personal.
   *[other] { $shown } devices measure something personal.
}
personal-none = None of it leaves.
personal-all = { $n ->
    [one] Its readings leave, with a consent.
   *[other] Their readings leave, with a consent.
}
personal-some = { $n ->
    [one] The readings of one of them leave, with a consent.
   *[other] The readings of { $shown } of them leave, with a consent.
}
flow-leaves = Leaves for { $server }.
flow-leaves-in-part = Leaves in part for { $server }.
flow-stays = Does not leave for { $server }.
flow-given = Consent of { $person }, { $date }. Paper: { $paper }.
flow-given-for = Consent of { $person }, { $date }, for: { $purpose }. Paper: { $paper }.
flow-given-unnamed = A consent of { $date } is on record.
flow-configured = Consent written in the settings of the box: “{ $consent }”
flow-configured-unnamed = A consent is written in the settings of the box.
flow-unspoken = No consent is on record.
flow-withdrawn = The consent was withdrawn { $when }.
flow-doubted = The consents on record could not be read again. Record this one anew, paper in hand.
consent-give = Record a consent
consent-give-go = Record the consent
consent-withdraw = Withdraw the consent
consent-withdraw-go = Withdraw now
consent-withdraw-about = Sending stops at once. What has left does not come back: ask whoever received it to erase it.
consent-noted = The consent is on record. Sending can begin.
consent-ended = The consent is withdrawn. Nothing leaves any more.
consent-wrong-person = Write the person's name, in 60 characters at most.
consent-wrong-paper = Write where the signed paper is, in 200 characters at most.
consent-wrong-purpose = The use is too long: 200 characters at most.
consent-wrong-date = Choose the day written on the paper. It cannot be in the future.
consent-wrong-server = Tick at least one server.
consent-all-points = The whole device
field-person = Who consents
field-asked-by = Who asks for it
field-points = For which readings
field-servers = For whom
field-purpose = For what use
purpose-hint = Optional. For instance: study of energy savings.
field-dated = Date of the signed paper
field-paper = Where the signed paper is
paper-hint = For instance: data protection binder, secretary's office.
record-title = Everything on record
record-about = Nothing is ever removed from this list: it proves what was agreed.
record-given = Consent recorded: { $things }, for { $servers }.
record-withdrawn = Consent withdrawn: { $things }, for { $servers }.
record-doubted = The consents recorded before no longer count.
record-doubted-about = The memory card was damaged; withdrawals may be lost. In doubt, nothing leaves any more.
record-asked-by = Asked for by { $person }.
record-by = Recorded by { $who }, { $when }

## Erasing
erase-title = Erasing data
erase-lead = What is erased does not come back. You will first see what goes; nothing is erased before you confirm.
erase-choose = What should be erased?
erase-pick = Choose…
erase-whole-device = { $device } – the whole device
erase-former = { $name } (former device)
erase-all = Everything, from the beginning
erase-before = Only what is from before a day
field-what = Device or reading
field-how = Which period
field-before = Before which day
before-hint = For the second choice. That day and the following ones stay.
erase-go-on = See what will be erased
erase-wrong-what = Choose a device or a reading from the list.
erase-wrong-how = Choose the period: everything, or before a day.
erase-wrong-date = Choose a day: what is from before will be erased.
erase-busy = Something is being erased already. Wait until it is done.
erase-question = Erase everything “{ $label }” has measured?
erase-question-before = Erase what “{ $label }” measured before { $date }?
erase-amount = { $n ->
    [one] That is { $shown } value kept since { $date }.
   *[other] That is about { $shown } values kept since { $date }.
}
erase-amount-none = No value is kept for that time.
erase-goes = Values, curves and totals go together.
erase-for-good = It is for good: neither you nor the technician can find them here again.
erase-stays-new = The device goes on measuring: new values will come. To stop it, see the technician.
erase-stays-after = What was measured since that date stays, and so do values whose date is unknown.
erase-copies = Copies may have been taken. Ask them to erase theirs:
erase-no-copies = No server has received a copy.
erase-noted = The journal keeps your name and the moment, without the values.
erase-confirm = Yes, erase for good
erase-at-work = Erasing. This may take some minutes; you may leave this page.
erase-at-work-of = Erasing: { $done } of { $of }. This may take some minutes; you may leave this page.
erase-look-again = Look again
erased-title = Erased already
erased-none = Nothing was erased yet.
erased-all = { $label }, all of it:
erased-before = { $label }, before { $date }:
erased-at-work = at work.
erased-interrupted = interrupted when the box stopped. Do it again to be sure: it costs nothing.
erased-count = { $n ->
    [0] there was nothing to erase.
    [one] { $shown } value erased.
   *[other] { $shown } values erased.
}
erased-refused = { $n ->
    [0] not erased, the memory card refused. Try again; if it lasts, call the technician.
    [one] { $shown } value erased, then the memory card refused. Try again; if it lasts, call the technician.
   *[other] { $shown } values erased, then the memory card refused. Try again; if it lasts, call the technician.
}

## Accounts
accounts-title = Accounts
accounts-add = Add somebody
accounts-add-button = Add and give a code
account-you = you
account-since = added { $when }
account-waiting = Has not chosen a password yet
account-change = Change
account-set-role = Change the role
account-reset = Give a new code
account-remove = Remove
account-exists = There is already an account of this name.
accounts-full = There are too many accounts. Remove one first.
account-gone = This account no longer exists.
last-mayor = At least one “Mayor” account must remain.
remove-question = Remove the account of { $name }?
remove-about = This person will no longer be able to enter. What they did stays in the journals.
remove-confirm = Yes, remove
code-for = Code for { $name }
code-about = Write it down now: it will not be shown again. It is the password of the first visit, then everybody chooses their own.
role-mayor = Mayor
role-mayor-about = May do everything.
role-secretary = Secretary
role-secretary-about = Makes announcements, follows what needs a look, records consents.
role-technician = Technician
role-technician-about = Sets up, tests, manages accounts except the mayor's. No alert.
role-viewer = Viewer
role-viewer-about = Looks without changing anything. Does not see personal readings.
field-role = Role
field-name = Name
field-password = Password
field-new-password = New password
field-current = Present password
field-again = The same, once more
field-code = Code of the box
name-wrong = Write a name of 60 characters at most.
account-title = My account
account-language = Language of the pages
account-change-password = Change the password
sign-out = Sign out

## Entering
sign-in-title = Sign in
sign-in-lead = The commune's box: meters, sensors, loudspeakers.
sign-in-password-hint = Or the code you were given, the first time.
sign-in-button = Enter
sign-in-wrong = The name or the password does not fit. Check both.
sign-in-forgotten = Forgotten password? The mayor or the technician can give you a new code.
claim-title = First visit
claim-lead = This box has no owner yet. Make the mayor's account.
claim-code-hint = Three groups of four, on the label or the screen of the box.
claim-code-wrong = This is not the code of this box. Read it again.
claim-name-hint = First name and name. It will sign the announcements.
claim-button = Make the account
password-title = Choose a password
password-lead = Your code was used. Now choose your password.
password-hint = Twelve characters at least. A sentence only you know does well.
password-short = It needs { $shown } characters at least. Add a word.
password-long = It is too long.
password-known = It could be guessed: name, commune or code. Choose something else.
password-monotonous = It repeats the same characters. Choose something else.
password-differs = The two are not the same. Type it again.
password-current-wrong = This is not your present password.

## When something goes wrong
problem-not-found = Page not found
problem-not-found-text = This page does not exist, or no longer does.
problem-method = Impossible request
problem-method-text = This page takes no form.
problem-too-large = Too large
problem-too-large-text = The form is too long. Shorten it.
problem-unreadable = Unreadable request
problem-unreadable-text = The request arrived incomplete. Go back and try again.
problem-forbidden = Not for this account
problem-forbidden-text = Your role does not allow this. Ask the mayor if you need it.
problem-cross-site = Form out of date
problem-cross-site-text = The page was open for too long, or does not come from here. Open it again and retry.
problem-slow = One moment
problem-slow-text = { $n ->
    [one] Too many tries. Try again in { $shown } second.
   *[other] Too many tries. Try again in { $shown } seconds.
}
problem-busy = The box is busy
problem-busy-text = Try again in a few seconds.
problem-store = The memory card does not answer
problem-store-text = The box cannot read it or write to it. It goes on measuring and announcing. Try again in a minute; if it lasts, call the technician without switching the box off.
problem-fell = Something went wrong
problem-fell-text = The page could not be prepared. Try again; if it lasts, call the technician.

## Legal
about-title = Accessibility, data, legal
about-access-title = Accessibility: not compliant
about-access-state = This panel has not been audited against RGAA 4.1 yet. Without an audit, the law asks to declare it “not compliant”.
about-access-done = It is made to be used by keyboard, with a screen reader, enlarged, light or dark, and without JavaScript. No state is told by colour alone. Each chart has its sentence and its table; each announcement has its text.
about-access-contact = If a page resists you, tell the town hall: you will get the information another way.
about-access-rights = Without an answer, you may turn to the Défenseur des droits (defenseurdesdroits.fr, or +33 9 69 39 00 00).
about-data-title = Data
about-data-where = Readings and accounts stay on this box, in the town hall. Only servers allowed by the commune fetch them, and the register says who, when and how much. A reading that tells something about a person leaves only with that person's consent, recorded here; the mayor can erase what was measured.
about-data-who = Accounts hold a name, a role and the hash of a password. The mayor can remove them. For your rights, turn to the town hall or its data protection officer.
about-data-cookie = One cookie, needed to stay signed in. No audience measurement, nothing from elsewhere.
about-publisher-title = Who publishes
about-publisher = The commune, on its own box. The software is Clocher.
