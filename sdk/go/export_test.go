package squallchaos

import "time"

// What the tests of other packages' view may reach inside.
var (
	Draw       = draw
	Signed     = signed
	BootNow    = bootNow
	LookEvery  = lookEvery
	CheckEvery = checkEvery
)

func Matches(pattern, text string) bool { return newPattern(pattern).matches(text) }

// ReadOrders says how many faults a control file has.
func ReadOrders(content []byte) (int, error) {
	found, err := readOrders(content)
	return len(found), err
}

// SetClock gives a Chaos another wall clock.
func (c *Chaos) SetClock(now func() time.Time) { c.wall = now }
