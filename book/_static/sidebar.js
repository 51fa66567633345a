/* Of the theme's buttons for the sidebars only the first in the document is listened to, and that one
   lies in a header that this book does not show. Those that are shown pass the click on to it. */
document.addEventListener("DOMContentLoaded", () => {
  for (const kind of ["primary-toggle", "secondary-toggle"]) {
    const [first, ...shown] = document.getElementsByClassName(kind);
    for (const button of shown) button.addEventListener("click", () => first.click());
  }
});
