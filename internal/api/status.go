package api

import (
	"net/http"

	"banger/internal/fault"
)

// HTTPStatus maps a fault's code to the status it travels with. The code itself is in the body.
func HTTPStatus(code fault.Code) int {
	switch code {
	case fault.Invalid, fault.Ambiguous:
		return http.StatusBadRequest
	case fault.NotFound:
		return http.StatusNotFound
	case fault.AlreadyExists, fault.WrongState, fault.InUse:
		return http.StatusConflict
	case fault.Forbidden:
		return http.StatusForbidden
	case fault.Requirement, fault.Incompatible:
		return http.StatusPreconditionFailed
	case fault.Exhausted:
		return http.StatusInsufficientStorage
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	case fault.Timeout:
		return http.StatusGatewayTimeout
	case fault.Canceled:
		return 499 // as nginx uses it: the client called it off
	case fault.GuestFailed:
		return http.StatusBadGateway
	case fault.Corrupt, fault.Internal:
		return http.StatusInternalServerError
	}
	return http.StatusInternalServerError
}
