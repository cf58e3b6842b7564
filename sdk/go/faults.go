package squallchaos

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"strings"
	"sync/atomic"
	"unicode/utf8"
)

// Bounds of a control file; one that is over them counts as malformed.
const (
	protocolVersion  = 1
	controlBytesMost = 64 * 1024
	faultsMost       = 64
)

// orders is a control file, NAME.json.
type orders struct {
	Version int               `json:"version"`
	Run     string            `json:"run"`
	Faults  []json.RawMessage `json:"faults"`
}

// driven is one of its faults.
type driven struct {
	ID            string            `json:"id"`
	RequireHeader bool              `json:"require_header"`
	Header        string            `json:"header"`
	Sample        float64           `json:"sample"`
	Method        string            `json:"method"`
	Path          string            `json:"path"`
	Headers       map[string]string `json:"headers"`
	DelayMin      int64             `json:"delay_min_ns"`
	DelayMax      int64             `json:"delay_max_ns"`
	AbortStatus   *int              `json:"abort_status"`
	AbortBody     string            `json:"abort_body"`
	AbortHeaders  map[string]string `json:"abort_headers"`
	Seed          uint64            `json:"seed"`
}

// readOrders takes the faults out of a control file, in their order; an error when anything about it is not as described,
// for half an order is none.
func readOrders(content []byte) ([]*source, error) {
	if len(content) > controlBytesMost {
		return nil, fmt.Errorf("it has %d bytes, %d are allowed", len(content), controlBytesMost)
	}
	if !utf8.Valid(content) {
		return nil, errors.New("it is not UTF-8")
	}
	var found orders
	if err := readObject(content, &found, "version", "run", "faults"); err != nil {
		return nil, err
	}
	if found.Version != protocolVersion {
		return nil, fmt.Errorf("version %d: this is squallchaos %s, which knows version %d", found.Version, Version, protocolVersion)
	}
	if len(found.Faults) > faultsMost {
		return nil, fmt.Errorf("it has %d faults, %d are allowed", len(found.Faults), faultsMost)
	}
	sources := make([]*source, 0, len(found.Faults))
	known := map[string]bool{}
	for number, raw := range found.Faults {
		one, err := readFault(raw)
		if err != nil {
			return nil, fmt.Errorf("faults[%d]: %w", number, err)
		}
		if known[one.fault] {
			return nil, fmt.Errorf("faults[%d]: a second fault %q", number, one.fault)
		}
		known[one.fault] = true
		sources = append(sources, one)
	}
	return sources, nil
}

func readFault(content []byte) (*source, error) {
	var one driven
	fields := []string{
		"id", "require_header", "header", "sample", "method", "path", "headers", "delay_min_ns", "delay_max_ns",
		"abort_status", "abort_body", "abort_headers", "seed",
	}
	if err := readObject(content, &one, fields...); err != nil {
		return nil, err
	}
	if err := one.check(); err != nil {
		return nil, err
	}
	return one.source(), nil
}

// readObject reads a JSON object that has these fields, spelled so and each once, and no others.
func readObject(content []byte, into any, fields ...string) error {
	decoder := json.NewDecoder(bytes.NewReader(content))
	if opening, err := decoder.Token(); err != nil || opening != json.Delim('{') {
		return errors.New("it is not a JSON object")
	}
	known := make(map[string]bool, len(fields))
	for _, name := range fields {
		known[name] = true
	}
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return err
		}
		name, _ := token.(string)
		if !known[name] { // not there, or there before
			return fmt.Errorf("field %q is unknown or there twice", name)
		}
		delete(known, name)
		var skipped json.RawMessage
		if err := decoder.Decode(&skipped); err != nil {
			return err
		}
		if string(skipped) == "null" && name != "abort_status" { // Go would read it as "as it was"
			return fmt.Errorf("field %q is null", name)
		}
	}
	if _, err := decoder.Token(); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON object")
	}
	for name := range known {
		return fmt.Errorf("field %q is missing", name)
	}
	return json.Unmarshal(content, into)
}

func (d driven) check() error {
	switch {
	case d.ID == "":
		return errors.New("id is empty")
	case !headerForm.MatchString(d.Header):
		return fmt.Errorf("header %q is not a header's name", d.Header)
	case !isShare(d.Sample):
		return fmt.Errorf("sample %v is not between 0 and 1", d.Sample)
	case d.DelayMin < 0 || d.DelayMin > d.DelayMax || d.DelayMax > int64(DelayLongest):
		return fmt.Errorf("the delay goes from %d to %d ns, not upwards within 0 and %d", d.DelayMin, d.DelayMax, int64(DelayLongest))
	case d.AbortStatus != nil && !isHTTPStatus(*d.AbortStatus):
		return fmt.Errorf("abort_status %d is not between 200 and 599", *d.AbortStatus)
	}
	for name := range d.Headers {
		if !headerForm.MatchString(name) {
			return fmt.Errorf("headers: %q is not a header's name", name)
		}
	}
	for name, value := range d.AbortHeaders {
		if !headerForm.MatchString(name) || isFraming(name) || strings.ContainsFunc(value, isControl) {
			return fmt.Errorf("abort_headers: %q cannot be sent", name)
		}
	}
	return nil
}

// isFraming says whether a header is the server's own business.
func isFraming(name string) bool {
	switch strings.ToLower(name) {
	case "content-length", "transfer-encoding", "connection":
		return true
	}
	return false
}

func isControl(letter rune) bool {
	return letter < ' ' || letter == 0x7F
}

func (d driven) source() *source {
	made := &source{
		fault:         d.ID,
		header:        textproto.CanonicalMIMEHeaderKey(d.Header),
		requireHeader: d.RequireHeader,
		sample:        d.Sample,
		method:        newPattern(strings.ToUpper(d.Method)),
		path:          newPattern(d.Path),
		delayMin:      d.DelayMin,
		delayMax:      d.DelayMax,
		abortBody:     d.AbortBody,
		seed:          d.Seed,
		eligible:      new(atomic.Uint64),
	}
	for name, value := range d.Headers {
		wantedValue := pattern{strings.Split(value, "*")} // an empty value is an empty header here, not any
		made.headers = append(made.headers, wanted{name, wantedValue})
	}
	for name, value := range d.AbortHeaders {
		made.abortHeaders = append(made.abortHeaders, field{name, value})
	}
	if d.AbortStatus != nil {
		made.abortStatus, made.abortShare = *d.AbortStatus, 1
	}
	return made
}
