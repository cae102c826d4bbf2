package trash

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The clock of a machine may be set while things are in the trash, by a day ahead and back again. How long something has
// been there is therefore counted by the boots of the machine:
//
//	removed in this boot      the time since, as CLOCK_BOOTTIME has it; nobody can set that
//	removed in another one    by the clock, but not before this boot is settle old: until then the clock may be one that
//	                          no network has corrected yet

// settle is how old a boot is before its clock is believed.
const settle = time.Hour

// moment is a time by the clock and since the machine was started.
type moment struct {
	wall time.Time
	boot string // its id; "" when nobody knows
	up   time.Duration
}

func present() moment {
	m := moment{wall: time.Now()}
	var ts unix.Timespec
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err == nil && unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) == nil {
		m.boot, m.up = strings.TrimSpace(string(id)), time.Duration(ts.Nano())
	}
	return m
}

// stamp says of a record that is made now when it was removed.
func (r *Record) stamp(now moment) {
	r.Boot = now.boot
	r.Up = now.up - now.wall.Sub(r.Removed)
}

// age is how long the thing is there; known is false as long as nobody can say. A negative one was removed in the future.
func (r *Record) age(now moment) (age time.Duration, known bool) {
	if r.Boot != "" && r.Boot == now.boot {
		return now.up - r.Up, true
	}
	return now.wall.Sub(r.Removed), now.boot == "" || now.up >= settle
}
