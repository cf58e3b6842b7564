package squallchaos

import "time"

// What the tests of other packages' view may reach inside.
var (
	Draw          = draw
	Signed        = signed
	BootNow       = bootNow
	LookEvery     = lookEvery
	CheckEvery    = checkEvery
	FromVariables = fromVariables
)

func Matches(pattern, text string) bool { return newPattern(pattern).matches(text) }

// ReadOrders says how many faults a control file has.
func ReadOrders(content []byte) (int, error) {
	found, err := readOrders(content)
	return len(found), err
}

// NewAt is New with another wall clock.
func NewAt(settings Settings, wall func() time.Time) (*Chaos, error) {
	return newChaos(settings, false, wall)
}
