package squallchaos_test

import (
	"fmt"
	"strings"
	"testing"

	chaos "squall.dev/squallchaos"
)

const wholeFault = `{"id":"f","require_header":false,"header":"X-Chaos-Enabled","sample":1.0,"method":"","path":"",` +
	`"headers":{},"delay_min_ns":0,"delay_max_ns":500000000,"abort_status":null,"abort_body":"","abort_headers":{},"seed":7}`

// with is the whole fault with another part in the place of one.
func with(part, other string) string {
	return strings.Replace(wholeFault, part, other, 1)
}

func control(faults ...string) string {
	return `{"version": 1, "run": "r", "faults": [` + strings.Join(faults, ",") + `]}`
}

func TestControlFiles(t *testing.T) {
	many := make([]string, 65)
	for i := range many {
		many[i] = with(`"id":"f"`, fmt.Sprintf(`"id":"%d"`, i))
	}
	for what, each := range map[string]struct {
		content string
		faults  int
		problem string
	}{
		"none":              {control(), 0, ""},
		"a whole one":       {control(wholeFault), 1, ""},
		"the most":          {control(many[:64]...), 64, ""},
		"too many":          {control(many...), 0, "65 faults"},
		"too large":         {control() + strings.Repeat(" ", 64*1024), 0, "bytes"},
		"nothing":           {"", 0, "not a JSON object"},
		"half":              {control(wholeFault)[:80], 0, "EOF"},
		"two":               {control() + control(), 0, "follows"},
		"a list":            {"[]", 0, "not a JSON object"},
		"another version":   {`{"version": 2, "run": "r", "faults": []}`, 0, "version 2"},
		"no version":        {`{"run": "r", "faults": []}`, 0, `"version" is missing`},
		"an unknown field":  {`{"version": 1, "run": "r", "faults": [], "more": 1}`, 0, `"more"`},
		"a field spelled":   {`{"Version": 1, "run": "r", "faults": []}`, 0, `"Version"`},
		"a field twice":     {`{"version": 1, "version": 1, "run": "r", "faults": []}`, 0, "twice"},
		"an unknown one":    {control(with(`"seed"`, `"mood":"bad","seed"`)), 0, `faults[0]: field "mood"`},
		"a missing one":     {control(with(`,"seed":7`, "")), 0, `"seed" is missing`},
		"a null":            {control(with(`"sample":1.0`, `"sample":null`)), 0, "null"},
		"no id":             {control(with(`"id":"f"`, `"id":""`)), 0, "id is empty"},
		"an id twice":       {control(wholeFault, wholeFault), 0, "second fault"},
		"a large sample":    {control(with(`1.0`, `1.5`)), 0, "sample"},
		"a delay backwards": {control(with(`"delay_min_ns":0`, `"delay_min_ns":500000001`)), 0, "delay"},
		"a long delay":      {control(with(`500000000`, `3600000000001`)), 0, "delay"},
		"a small status":    {control(with(`"abort_status":null`, `"abort_status":101`)), 0, "abort_status"},
		"a text for number": {control(with(`"seed":7`, `"seed":"7"`)), 0, "seed"},
		"a negative seed":   {control(with(`"seed":7`, `"seed":-1`)), 0, "seed"},
		"a split answer":    {control(with(`"abort_headers":{}`, `"abort_headers":{"X":"a\r\nSet-Cookie: b"}`)), 0, "abort_headers"},
		"a header's name":   {control(with(`X-Chaos-Enabled`, `X Y`)), 0, "header"},
		"a wanted header":   {control(with(`"headers":{}`, `"headers":{"":"b"}`)), 0, "headers"},
		"not UTF-8":         {control("{\"id\":\"\xff\"}"), 0, "UTF-8"},
	} {
		found, err := chaos.ReadOrders([]byte(each.content))
		if found != each.faults || (err == nil) != (each.problem == "") || err != nil && !strings.Contains(err.Error(), each.problem) {
			t.Errorf("%s: %d faults, %v", what, found, err)
		}
	}
}

func FuzzControlFilesAreReadOrRefused(f *testing.F) {
	f.Add([]byte(control(wholeFault)))
	f.Add([]byte(control(with(`"seed":7`, `"seed":18446744073709551615`), with(`"headers":{}`, `"headers":{"X":"*"}`))))
	f.Add([]byte(`{"version":1}`))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, content []byte) {
		found, err := chaos.ReadOrders(content)
		if err != nil && found != 0 || found > 64 {
			t.Errorf("%d faults, %v", found, err)
		}
	})
}
