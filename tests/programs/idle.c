/* Does nothing for a long time. */
#include <unistd.h>

int main(void)
{
	for (;;)
		pause();
}
