#include <cstdlib>
#include <iostream>
#include <string_view>

// A CGI program: the request is in the environment and on standard input, the
// response goes to standard output, headers first.
int main() {
  const char *path = std::getenv("PATH_INFO");  // "/Ada"
  std::string_view name = path ? path : "";
  if (name.starts_with('/')) name.remove_prefix(1);
  if (name.empty()) name = "world";

  std::cout << "Content-Type: text/plain; charset=utf-8\n\n"
            << "Hello, " << name << ", from C++!\n";
}
