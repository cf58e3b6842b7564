// Package routers shows squallchaos in chi, gin and echo, and in OpenTelemetry's traces; its tests are what it is for. It
// is a module of its own so that squallchaos does not need theirs.
package routers

import (
	"net/http"

	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/labstack/echo/v4"
	"squall.dev/squallchaos"
)

// Chi puts chaos before every route of a chi router; it takes net/http's middleware as it is.
func Chi(chaos *squallchaos.Chaos) *chi.Mux {
	router := chi.NewRouter()
	router.Use(chaos.Middleware)
	return router
}

// Echo puts chaos before every route of an echo; it wraps net/http's middleware itself.
func Echo(chaos *squallchaos.Chaos) *echo.Echo {
	router := echo.New()
	router.Use(echo.WrapMiddleware(chaos.Middleware))
	return router
}

// Gin puts chaos before the routes of a gin engine. Where all routes are meant, chaos.Middleware(engine) is less.
func Gin(chaos *squallchaos.Chaos) *gin.Engine {
	router := gin.New()
	router.Use(func(c *gin.Context) {
		handled := false
		chaos.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			handled, c.Request = true, r
			c.Next()
		})).ServeHTTP(c.Writer, c.Request)
		if !handled {
			c.Abort()
		}
	})
	return router
}
