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
	signatureValid     = 300 * time.Second
	secondsDigitsMost  = 15
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
	if err != nil || now.Sub(time.Unix(at, 0)).Abs() > signatureValid {
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

// switchesOn says whether a header's value counts where there is no secret.
func switchesOn(value string) bool {
	switch strings.ToLower(value) {
	case "", "0", "false", "off":
		return false
	}
	return true
}
