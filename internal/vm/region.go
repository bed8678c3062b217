package vm

import (
	"regexp"

	"banger/internal/fault"
)

// Names become paths below /usr/share/zoneinfo and lines of files in guests, so neither may hold a dot
// segment, a space or a quote.
var (
	timezonePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_+-]*(/[A-Za-z0-9][A-Za-z0-9_+-]*){0,2}$`)
	localePattern   = regexp.MustCompile(`^(C|POSIX|[a-z]{2,3}(_[A-Z]{2})?)(\.[A-Za-z0-9-]{1,20})?(@[a-z]{1,20})?$`)
)

// CheckTimezone reports why a name cannot be one of the IANA time zone database, or nil. Whether it is one
// only the guest's own copy of the database can tell.
func CheckTimezone(name string) error {
	if len(name) > 64 || !timezonePattern.MatchString(name) {
		return fault.New(fault.Invalid, "it is not a time zone").WithOp("read time zone", name).
			WithHint("write a name of the IANA database, such as UTC or Europe/Rome")
	}
	return nil
}

// CheckLocale reports why a name cannot be a locale's, as in LANG, or nil.
func CheckLocale(name string) error {
	if !localePattern.MatchString(name) {
		return fault.New(fault.Invalid, "it is not a locale").WithOp("read locale", name).
			WithHint("write what LANG would hold, such as C.UTF-8 or de_DE.UTF-8")
	}
	return nil
}
