package squallchaos

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
)

const (
	signatureSeconds   = 300
	secondsDigitsMost  = 12
	signatureTextBytes = 2 * sha256.Size
)

// Sign makes the header's value for a service with this secret; it counts for 300 s before and after that time.
func Sign(secret string, at time.Time) string {
	seconds := strconv.FormatInt(at.Unix(), 10)
	return seconds + "." + signature(secret, seconds)
}

func signature(secret, seconds string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(seconds))
	return hex.EncodeToString(mac.Sum(nil))
}

// signed says whether a header's value was made by Sign, of this secret and at about this time.
func signed(value, secret string, now time.Time) bool {
	seconds, given, found := strings.Cut(value, ".")
	if !found || len(given) != signatureTextBytes || !isDigits(seconds) {
		return false
	}
	at, err := strconv.ParseInt(seconds, 10, 64)
	if age := now.Unix() - at; err != nil || age > signatureSeconds || age < -signatureSeconds {
		return false
	}
	return hmac.Equal([]byte(signature(secret, seconds)), []byte(given))
}

func isDigits(text string) bool {
	for _, each := range []byte(text) {
		if each < '0' || each > '9' {
			return false
		}
	}
	return text != "" && len(text) <= secondsDigitsMost
}

// isOff says whether a header's value is as good as none, secret or not.
func isOff(value string) bool {
	switch strings.ToLower(value) {
	case "", "0", "false", "off":
		return true
	}
	return false
}
