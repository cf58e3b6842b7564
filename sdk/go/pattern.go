package squallchaos

import "strings"

// pattern is a text in which `*` stands for any characters, none included; an empty one matches everything.
type pattern struct {
	parts []string // what stands between the stars
}

func newPattern(text string) pattern {
	if text == "" {
		return pattern{}
	}
	return pattern{strings.Split(text, "*")}
}

func (p pattern) matches(text string) bool {
	if p.parts == nil {
		return true
	}
	first, rest := p.parts[0], p.parts[1:]
	if len(rest) == 0 {
		return text == first
	}
	text, found := strings.CutPrefix(text, first)
	if !found {
		return false
	}
	last := rest[len(rest)-1]
	for _, part := range rest[:len(rest)-1] {
		// The leftmost place is always a right one: it leaves the most for what follows.
		if _, text, found = strings.Cut(text, part); !found {
			return false
		}
	}
	return strings.HasSuffix(text, last)
}
