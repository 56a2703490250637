<?php
// A front controller, as applications have one: every path that is no file comes here.
session_start();
$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
if ($path === '/login' && $_SERVER['REQUEST_METHOD'] === 'POST') {
    $_SESSION['name'] = $_POST['name'];
    echo "welcome";
} elseif ($path === '/me') {
    echo isset($_SESSION['name']) ? "you are {$_SESSION['name']}." : "you are nobody.";
} else {
    echo "path $path";
}
