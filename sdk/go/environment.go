package squallchaos

import (
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"
)

const (
	variables      = "SQUALL_CHAOS_"
	killVariable   = "SQUALL_CHAOS"
	folderVariable = "SQUALL_CHAOS_DIR"
)

// FromEnvironment puts what the variables SQUALL_CHAOS_* say in the place of what base does: the setting's name in
// capitals, durations with a unit (SQUALL_CHAOS_DELAY_MAX=250ms), shares as 0.01 or 1%, switches as true, false, 1, 0, on,
// off. An empty variable is none; one that is no setting's is an error, as is one that does not say what its setting is.
// [New] checks the rest.
func FromEnvironment(base Settings) (Settings, error) {
	return fromVariables(base, os.Environ())
}

func fromVariables(base Settings, environment []string) (Settings, error) {
	readers := map[string]func(string) (allowed string, right bool){
		"ENABLED": switchReader(&base.Enabled), "REQUIRE_HEADER": switchReader(&base.RequireHeader),
		"DRIVEN": switchReader(&base.Driven), "SAMPLE": shareReader(&base.Sample), "ABORT_SHARE": shareReader(&base.AbortShare),
		"DELAY_MIN": delayReader(&base.DelayMin), "DELAY_MAX": delayReader(&base.DelayMax),
		"SERVICE": textReader(&base.Service), "HEADER": textReader(&base.Header), "SECRET": textReader(&base.Secret),
		"METHOD": textReader(&base.Method), "PATH": textReader(&base.Path), "NAME": textReader(&base.Name),
		"EDGE": textReader((*string)(&base.Edge)),
		"ABORT_STATUS": func(text string) (string, bool) {
			value, err := strconv.ParseUint(text, 10, 16)
			base.AbortStatus = int(value)
			return "a whole number", err == nil
		},
		"SEED": func(text string) (string, bool) {
			value, err := strconv.ParseUint(text, 10, 64)
			base.Seed = value
			return "0 to 2^64 - 1", err == nil
		},
		"UNTIL": func(text string) (string, bool) {
			value, err := time.Parse(time.RFC3339, text)
			base.Until = value
			return "a time with its zone (2026-12-31T18:00:00Z)", err == nil
		},
	}
	var wrong []Problem
	for _, each := range environment {
		variable, text, _ := strings.Cut(each, "=")
		setting, isOurs := strings.CutPrefix(variable, variables)
		if !isOurs || variable == folderVariable || text == "" {
			continue
		}
		read := readers[setting]
		if read == nil {
			wrong = append(wrong, Problem{variable, "there", "no variable of that beginning that is no setting's"})
		} else if allowed, right := read(text); !right {
			wrong = append(wrong, Problem{variable, fmt.Sprintf("%q", text), allowed})
		}
	}
	if wrong != nil {
		sort.Slice(wrong, func(i, j int) bool { return wrong[i].Setting < wrong[j].Setting })
		return Settings{}, &SettingsError{wrong}
	}
	return base, nil
}

func textReader(into *string) func(string) (string, bool) {
	return func(text string) (string, bool) {
		*into = text
		return "", true
	}
}

func switchReader(into *bool) func(string) (string, bool) {
	return func(text string) (string, bool) {
		on, known := map[string]bool{
			"true": true, "1": true, "on": true, "false": false, "0": false, "off": false,
		}[strings.ToLower(text)]
		*into = on
		return "true, false, 1, 0, on or off", known
	}
}

func shareReader(into *float64) func(string) (string, bool) {
	return func(text string) (string, bool) {
		number, isPercent := strings.CutSuffix(text, "%")
		value, err := strconv.ParseFloat(number, 64)
		if isPercent {
			value /= 100
		}
		*into = value
		return "0 to 1, or 0% to 100%", err == nil && isShare(value)
	}
}

func delayReader(into *time.Duration) func(string) (string, bool) {
	return func(text string) (string, bool) {
		value, err := time.ParseDuration(text)
		*into = value
		return "0 to 1h, with a unit (250ms, 1s500ms)", err == nil && isDelay(value)
	}
}
